"""The page in the browser: `entering` knows who may come in, `gatekeeper` looks at every request,
`bounded_server` carries them, `site` answers, `contents` and `pages` make what is answered, `streams` tells
open pages what is new, `web_api` answers programs."""
