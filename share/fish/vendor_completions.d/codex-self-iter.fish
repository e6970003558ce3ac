function __codex_self_iter
  codex-self-iter complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null
end
complete -c codex-self-iter -a '(__codex_self_iter)'
