"""Evidence, class, what follows, bound: one table of how runs fail. Pure data, and its readers.

Evidence is of two kinds. What a CLI says *as an error* (an error event, its own code, the HTTP
status, the code in an API's error body, an exit code) is believed. Free text (what a program
printed) is believed only when it is, from its first word on, a sentence that a known CLI prints as
its last one, and then only as a guess. docs/agents.md shows this table; a test compares them."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Literal

from codex_self_iter.core.agent_report import FailureClass


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One class of failure.

    Attributes:
        evidence: what tells it, for people.
        follows: what happens, for people. When that ends is in `core.bounds`.
        statuses: HTTP statuses that mean it.
        codes: codes of error bodies, whichever API they come from; in lower case.
        sentences: beginnings of lines that CLIs end a failed run with.
        phrases: what the message of an error event says of it, anywhere.
        mend: what a person can do, where the adapter knows nothing better."""

    kind: FailureClass
    evidence: str
    follows: str
    statuses: tuple[int, ...] = ()
    codes: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    mend: str = ""


# Google says "check your plan and billing" of limits of a minute, too: then it names the metric.
_PLAN = (
    r"\A(?!.*(?:quota exceeded for metric|resource_?exhausted|ai\.google\.dev|retry in \d))"
    r".*check your plan and billing"
)

_AS_ROOT = r"--dangerously-skip-permissions cannot be used with root"

# In the order in which text is read: what is more exact goes first.
TABLE: tuple[Row, ...] = (
    Row(
        FailureClass.MEMORY,
        "`memory_limit_mb`, the kernel's or the runtime's words of its end",
        "backoff; the next prompt says so",
        sentences=(
            r"[^\n]{0,160}heap out of memory",
            r"[^\n]{0,60}cannot allocate memory",
            r"memory allocation of \d+ bytes failed",
        ),
        phrases=(r"heap out of memory", r"cannot allocate memory", r"\bENOMEM\b",
                 r"memory allocation of \d+ bytes failed"),
        mend="raise memory_limit_mb, give the machine more memory, or have less done at once",
    ),
    Row(
        FailureClass.CONTEXT,
        "HTTP 413, codes such as `context_length_exceeded`, words of a prompt that is too long or "
        "of a session that is gone",
        "at once a fresh session; did it fail in one, a short prompt: task and plan by their paths, no "
        "history",
        statuses=(413,),
        codes=(
            "context_length_exceeded", "context_window_exceeded", "request_too_large",
            "input_too_large", "string_above_max_length", "contextoverflowerror",
            "model_context_window_exceeded", "websocket_message_too_large",
            "contextwindowexceedederror",
        ),
        sentences=(
            r"(prompt|input|conversation|request) (is )?too (long|large)",
            r"codex ran out of room",
            r"this model's maximum context length is",
            r"(the )?input token count .{0,40}exceeds the maximum",
            r"(your )?input (length and `max_tokens` )?exceeds? (the )?(context|maximum)",
            r"the message is too large for the connection",
            r"input is too long for requested model",
            r"(thread/resume[\w :/]{0,30})?no (conversation|rollout) found",
            r"(session|thread|conversation) [^.\n]{0,80}not found",
            r"session id .{0,60}already in use",
            r"invalid session identifier|error resuming session",
            r"for more info: https://aider\.chat/docs/token-limits",
        ),
        phrases=(
            r"context[ _-]?(window|length)",
            r"(prompt|input|conversation|request) ((is|as) )?too (long|large)",
            r"ran out of room|input_too_large|request_too_large",
            r"maximum (context|number of tokens)",
            r"exceeds? the maximum (number of tokens|allowed)",
            # A session that cannot be gone on with; a fresh one can.
            r"no (conversation|rollout) found",
            r"(session|thread|conversation)[^.\n]{0,80}not found",
            r"invalid session identifier|error resuming session",
            r"already has an active writer|session id .{0,60}already in use",
        ),
        mend="shorten task and plan, or choose a model with a larger context",
    ),
    Row(
        FailureClass.BILLING,
        "HTTP 402, codes such as `insufficient_quota`, words of credit, spend caps and plans that "
        "name no end",
        "state `blocked`, told once with what to do, one more try; the next agent stands in",
        statuses=(402,),
        codes=(
            "insufficient_quota", "billing_error", "billing_hard_limit_reached",
            "billing_not_active", "insufficient_credits", "insufficient_balance",
            "deactivated_workspace", "account_deactivated", "payment_required",
            "access_terminated_error", "exceeded_current_quota_error", "usage_not_included",
            "workspace_owner_credits_depleted", "workspace_member_credits_depleted", "arrearage",
            "workspace_owner_usage_limit_reached", "workspace_member_usage_limit_reached",
            "spend_control_reached", "session_budget_exceeded", "creditserror",
            "1113",  # Zhipu: in arrears
        ),
        sentences=(
            r"(your )?credit balance (is )?too low",
            r"quota exceeded\. check your plan and billing",
            (r"you exceeded your current quota, please check your plan and billing"
            r"(?!.*(?:quota exceeded for metric|ai\.google\.dev|retry in \d))"),
            r"to use codex with your chatgpt plan, upgrade",
            r"your workspace is out of credits|you're out of credits",
            r"you've reached your workspace credit limit",
            r"(you('ve| have)? (hit|reached) )?your [\w' -]{0,40}spend(ing)? (cap|limit)",
            r"you (have )?(hit|reached) your spend(ing)? (cap|limit)",
            r"(monthly |individual |org )?spend limit reached",
            r"usage credits (are )?required",
            r"insufficient (credits?|funds|balance|quota)",
            r"billing hard limit has been reached",
            r"your account is not active, please check your billing",
            r"payment required",
            r"your (workspace|account) (has been|is) deactivated",
            r"your prepayment credits are depleted|session budget exceeded$",
            r"(402:? )?(this request requires more credits|insufficient credits)",
            r"402:? payment required",
        ),
        phrases=(
            r"credit balance|insufficient[ _](credits?|funds|balance|quota)",
            _PLAN,
            r"out of (credits|funds)|credits? (are )?(depleted|exhausted)|requires more credits",
            r"spend(ing)?[ _](cap|limit)|workspace credit limit",
            r"billing[ _](error|hard)|payment required",
            r"chatgpt plan, upgrade|usage credits (are )?required",
            r"(workspace|account)[^.\n]{0,30}deactivated|deactivated_(workspace|account)",
            r"account is not active",
        ),
        mend="add credit, raise the cap, or change plan or account",
    ),
    Row(
        FailureClass.LIMIT,
        "HTTP 429, codes of usage and rate limits, their sentences",
        "state `limited` until the reset that the CLI names and 5 to 35 s longer, else backoff; "
        "nothing is started into it; read from text alone it is an ordinary backoff until a second run has said it, too",
        statuses=(429,),
        codes=(
            "usage_limit_reached", "usage_limit_exceeded", "rate_limit_exceeded",
            "rate_limit_error", "rate_limit", "ratelimitexceeded", "resource_exhausted",
            "throttlingexception", "toomanyrequestsexception", "quota_exhausted",
            "rate_limit_reached", "too_many_requests", "limit_requests", "limit_burst_rate",
            "quota_exceeded", "throttling.ratequota", "throttling.allocationquota",
            "userratelimitexceeded", "freeusagelimiterror", "gousagelimiterror", "ratelimiterror",
            "servicequotaexceededexception",
        ),
        sentences=(
            r"you('ve| have)? (hit|reached) your [\w' -]{0,40}limit",
            r"you have reached your specified [\w -]{0,20}usage limits",
            r"(claude )?(ai )?usage limit([,:.]| (reached|exceeded|hit)\b|$)",
            r"[\w-]{1,12} limit reached\b",
            r"(sorry, )?you('ve| have)( been)? (exceeded your [\w ]{0,30}rate limit|rate[ -]limited)",
            r"rate limit (exceeded|reached|hit)\b",
            r"exceeded retry limit, last status: 429",
            r"you have exhausted your [\w ]{0,30}(quota|capacity)",
            r"you exceeded your current quota",
            r"[\w ]{0,30}quota exceeded\b",
            r"resource[ _]?(has been )?exhausted",
            r"too many requests\b",
            r"your (usage )?(limit|quota) will reset\b",
            r"you're out of (extra )?usage",
            r"you have exceeded your [\w -]{0,40}(limit|allowance|quota)",
            r"request rejected \(429\)|free usage exceeded\b",
            r"this request would exceed your (account|organization)'s rate limit",
            r"the api provider has rate limited you",
        ),
        phrases=(
            r"usage[ _]limit|rate[ _-]?limit",
            r"hit your [^.\n]{0,40}limit|limit reached",
            r"too many requests|resource_exhausted|resource has been exhausted",
            r"quota|exhausted your capacity|out of (extra )?usage",
            r"status:? 429|\(429\)",
        ),
    ),
    Row(
        FailureClass.AUTH,
        "HTTP 401 and 403, codes of keys and logins, gemini's exit code 41, words of a login that "
        "is missing, expired or disabled",
        "state `blocked`, told once with what to do, one more try; the next agent stands in",
        statuses=(401, 403),
        codes=(
            "authentication_error", "authentication_failed", "invalid_api_key", "permission_error",
            "unauthenticated", "permission_denied", "api_key_invalid", "token_expired",
            "token_invalidated", "refresh_token_failed", "refresh_token_expired",
            "refresh_token_reused", "refresh_token_invalidated", "accessdeniedexception",
            "expiredtokenexception", "unrecognizedclientexception", "invalid_authentication",
            "gateway_login_required", "unauthorized", "oauth_org_not_allowed",
            "organization_disabled", "invalid_grant", "providerautherror", "forbidden",
            "workspace_access_denied", "authenticationerror", "permissiondeniederror", "expiredtoken",
            "invalidclienttokenid", "unauthorizedssotokenerror", "nocredentialserror",
        ),
        sentences=(
            r"not logged in\b|you are not (logged in|authenticated)\b|gateway login required$",
            r"please (run |use )?[^\n]{0,20}/?log ?in\b",
            r"(invalid|incorrect) (x-)?api[ _-]?key\b|api key (expired|not valid)\b",
            r"you do not have access to this workspace",
            r"the security token included in the request is (expired|invalid)",
            r"(failed to authenticate|authentication (failed|required|error))\b",
            r"no authentication information found",
            (r"(your )?(oauth|access|refresh) token [^.\n]{0,40}"
            r"(expired|revoked|invalid|could not|deactivated)"),
            r"login (expired|reached its time limit)|your session has expired\. please",
            r"your chatgpt credential expired|failed to refresh token",
            r"please set an auth method|invalid auth method",
            r"when using gemini api, you must specify",
            r"your anthropic_api_key belongs to a disabled organization",
            r"this organization has been disabled",
            r"your organization [^.\n]{0,40}(disabled|does not have access)",
            r"the api provider is not able to authenticate you",
            r"the sso session associated with|error when retrieving token from sso",
            r"token (is|has) expired\b",
            r"unable to locate credentials|could not load credentials from any providers",
            r"(could not load the|your) default credentials\b|reauthentication is needed",
        ),
        phrases=(
            r"status:? 40[13]\b|\b403 forbidden|api error: 40[13]\b|\"code\": ?40[13]\b",
            r"\bunauthori[sz]ed\b|\bunauthenticated\b|permission_denied",
            r"not logged in|please (run )?[^\n]{0,20}/?log ?in",
            r"(invalid|incorrect) (x-)?api[ _-]?key",
            r"api[ _-]?key (is )?(missing|required|expired|not (set|found|valid))",
            r"authentication[ _](failed|error|required)|failed to authenticate",
            (r"(oauth|access|refresh) token [^.\n]{0,40}"
            r"(expired|revoked|invalid|could not|deactivated)"),
            r"login (expired|reached)|sign in again|credential expired|failed to refresh token",
            r"set an auth method|invalid auth method|must specify the \w+_API_KEY",
            r"disabled organization|organization has been disabled",
        ),
        mend="log in again, or give it a valid key",
    ),
    Row(
        FailureClass.CONFIG,
        "HTTP 404, codes of unknown models, a program that never was there, gemini's exit codes 52 "
        "and 55, words of unknown models, flags and untrusted folders",
        "state `blocked`, told once with what to do, one more try; the next agent stands in",
        statuses=(404,),
        codes=(
            "model_not_found", "not_found_error", "not_found", "invalid_model", "unsupported_model",
            "modelnotfounderror", "providermodelnotfounderror", "model_not_supported",
            "invalid_json_schema", "unsupported_country_region_territory", "unknown_model",
            "access_program_not_enabled",
            "no_acp", "acp_mode", "acp_spawn",  # of our own program that speaks ACP
        ),
        sentences=(
            (r"(the |selected )?('[^'\n]{1,60}' )?model\b[^.\n]{0,80}"
            r"(does not exist|not found|not supported|is not available)"),
            r"the requested access program cannot be used",
            r"model_?not_?found\b|unknown model\b",
            r"there's an issue with the selected model",
            r"unexpected argument|(unknown|unrecognized) (option|argument)",
            r"invalid value .{0,80} for '",
            r"not (inside|running in) a trusted directory",
            r"missing environment variable: ",
            r"error loading config",
            r"gemini cli is not running in a trusted directory",
            _AS_ROOT,
        ),
        phrases=(
            r"model[^.\n]{0,80}(does not exist|not found|not supported|is not available)",
            r"model_?not_?found|unknown model|issue with the selected model",
            r"unexpected argument|(unknown|unrecognized) (option|argument)",
            r"invalid value .{0,80} for '",
            r"not (inside|running in) a trusted directory|untrusted (folder|workspace|directory)",
            r"missing environment variable",
            r"error loading config|invalid_json_schema",
            _AS_ROOT,
        ),
        mend="mend its configuration (`codex-self-iter doctor` looks)",
    ),
    Row(
        FailureClass.OVERLOAD,
        "HTTP 5xx and 529, codes such as `overloaded_error`, words of a service at capacity",
        "backoff; not the agent's fault",
        statuses=(*range(500, 600),),
        codes=(
            "overloaded_error", "overloaded", "server_is_overloaded", "server_overloaded",
            "slow_down", "api_error", "internal_server_error", "server_error", "unavailable",
            "internal", "serviceunavailableexception", "model_overloaded", "engine_overloaded",
            "flex_unavailable", "policy_capacity_unavailable", "internalserverexception",
            "modelnotreadyexception", "engine_overloaded_error", "service_unavailable",
            "serviceunavailableerror", "internalservererror",
        ),
        sentences=(
            r"selected model is at capacity|(policy-restricted|flex) capacity (is )?unavailable",
            r"we're currently experiencing high demand",
            r"(repeated 529 )?overloaded\b|the model is overloaded|this model is currently",
            r"internal[ _]server[ _]error\b|bad gateway\b|service unavailable\b",
            r"server is temporarily limiting requests",
            r"codex is currently experiencing high load",
            r"an unknown error occurred\.\]$",
            r"the api provider's servers are down or overloaded",
            # The title of a gateway's page.
            (r"([\w.-]{1,80} \| )?50[234]:? "
            r"(bad gateway|service (temporarily )?unavailable|gateway time-?out)"),
        ),
        phrases=(
            r"overloaded|at capacity|high demand|high load|capacity (is )?unavailable",
            r"internal[ _]server[ _]error|bad gateway|gateway time-?out",
            r"service unavailable|temporarily unavailable|\bUNAVAILABLE\b",
            r"server is temporarily limiting",
            r"status:? 5\d\d\b|api error: 5\d\d\b",
        ),
    ),
    Row(
        FailureClass.NETWORK,
        "HTTP 408, broken, refused and silent connections, also hangs that our time-outs end",
        "backoff; not the agent's fault",
        statuses=(408,),
        codes=(
            "response_stream_disconnected", "response_stream_connection_failed", "timeout_error",
            "deadline_exceeded", "http_connection_failed", "econnrefused", "econnreset",
            "enotfound", "eai_again", "etimedout", "websocket_connection_failed",
            "apiconnectionerror", "apitimeouterror", "timeout",
        ),
        sentences=(
            r"stream (disconnected|closed|ended)\b(?!.*reason: content_filter)",
            r"stream idle timeout\b|the response (stalled|stopped arriving|stream was malformed)",
            (r"(connect |read |getaddrinfo )?(ECONN(REFUSED|RESET|ABORTED)|ENOTFOUND|EAI_AGAIN"
            r"|ETIMEDOUT)\b"),
            r"connection (refused|reset|error|closed|aborted|failed|timed out)\b",
            r"reconnecting\.\.\.|waiting for network",
            r"(exception )?(typeerror: )?fetch failed|socket hang up|error sending request",
            r"unable to connect|cannot connect to api|the socket connection was closed",
            r"request timed out|terminated\b|network (error|is unreachable)|premature close",
            r"expected property name or '}' in json|unexpected end of json",
            r"curl: \((5|6|7|28|35|52|56)\)",
            r"the api provider timed out",
            r"fetcherror: request to \S+ failed, reason: ",
            (r"(requests\.exceptions|urllib3\.exceptions|httpx|httpcore|aiohttp\.client_exceptions)\."
            r"\w*(connect|timeout|network|protocol|proxy|ssl|maxretry|resolution)\w*(:|$)"),
        ),
        phrases=(
            r"stream (disconnected|closed|ended)",
            r"connection (refused|reset|error|closed|aborted|failed|timed out)",
            r"ECONN(REFUSED|RESET|ABORTED)|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EPIPE|E(HOST|NET)UNREACH",
            r"waiting for network|network (error|is unreachable)",
            r"fetch failed|socket hang up|error sending request|unable to connect",
            r"name resolution|could not resolve|dns error|tls handshake",
            r"request timed out|(empty|malformed) response|premature close",
            r"stream idle timeout|response (stalled|stopped arriving|stream was malformed)",
            r"api error: terminated|^terminated$",
            # Half an event of a stream that was cut.
            r"expected property name or '}' in json|unexpected end of json|unterminated string",
        ),
    ),
    Row(
        FailureClass.MISSING,
        "a program that was there before and is gone, cannot be executed or is being written",
        "backoff: an update may be replacing it; not the agent's fault",
        mend="install it again, if no update is under way",
    ),
    Row(
        FailureClass.SANDBOX,
        "commands that fail for their sandbox, gemini's exit code 44, a run that opencode stopped",
        "state `blocked`, told once with what was refused, one more try; the next agent stands in",
        codes=("sandbox_error", "landlock_sandbox_executable_not_provided"),
        sentences=(
            r"bwrap: |codex-linux-sandbox",
            r"error running landlock|sandbox\((landlock|denied)",
        ),
        phrases=(
            r"\bbwrap: |\blandlock\b|\bseccomp\b",
            r"sandbox[^.\n]{0,60}(denied|failed|error|not (available|supported|permitted))",
        ),
        mend="make its sandbox work (`codex-self-iter doctor` looks), or choose another agent_mode",
    ),
    Row(
        FailureClass.KILLED,
        "we ended it before it had its answer",
        "go on",
    ),
    Row(
        FailureClass.AGENT,
        "everything else: non-zero exit, no control block, time-out while working, a run that others "
        "ended, refused prompts",
        "backoff; the next prompt says what was wrong",
        codes=(
            "error_max_turns", "error_max_budget_usd", "cyber_policy", "content_filter",
            "misalignment_policy_violation", "invalid_prompt", "too_many_denials",
            "inference_hook_denied", "bio_policy", "content_policy_violation",
        ),
    ),
)  # fmt: skip

STATUSES = {status: row.kind for row in TABLE for status in row.statuses}
CODES = {code: row.kind for row in TABLE for code in row.codes}
_MENDS = {row.kind: row.mend for row in TABLE}

_READ_CHARS = 4000
_CODE = re.compile(
    r"""["']?(?:type|code|status|reason|name|__type)["']?\s*[:=]\s*["']([\w.#-]{3,60})["']"""
)
_STATUS = re.compile(
    r"\b(?:status(?: code)?:?|HTTP(?:/[\d.]+)?|API Error:|Error code:|\(Status:)\s*([45]\d\d)\b",
    re.IGNORECASE,
)
# What may stand before a sentence: a mark, a name of a CLI, the word "error", a status, a bracket.
_BEFORE = re.compile(
    r"(?:[■✗✘✖❌⚠●•>*!\ufe0f-]+\s+"
    r"|\d{4}-\d\d-\d\d[T ][\d:.]+Z?\s+"
    r"|\[?(?:ERROR|error|Error|fatal|FATAL)\]?(?:\s+[\w:]+)?:\s+"
    r"|\[?(?:API|Api|Request|Execution|Internal) (?:Error|error|failed)(?:: ?| \()(?:[45]\d\d )?"
    r"|(?:codex|claude|gemini|opencode|qwen|copilot|cursor-agent|aider|amp|droid|goose|"
    r"invoke-codex-agent\.sh): "
    r"|(?:openai|anthropic|litellm|(?:google|botocore)\.\w+)\.(?:\w+\.)*\w*(?:Error|Exception): "
    r"|CredentialsProviderError: )+"
)
# What a stream ended with before its end, where that is an answer of the API.
_CARRIED = re.compile(r"stream disconnected before completion: ", re.IGNORECASE)
# A status that a CLI or SDK of a known kind names in front of its message.
_NAMED_STATUS = re.compile(
    r"(?:\[?API Error(?:: ?| \()|unexpected status |exceeded retry limit, last status: "
    r"|Error code: |httpx\.HTTPStatusError: \w+ error '|requests\.exceptions\.HTTPError: )"
    r"([45]\d\d)\b"
)
# gemini puts the API's whole error body there.
_NAMED_BODY = re.compile(r"\[?API Error: ?\{")
# The last line of a traceback.
_SDK = re.compile(r"(?:openai|anthropic|litellm)\.(?:\w+\.)*(\w+(?:Error|Exception)|Timeout): ")
# What AWS answers, and the SDK's class of it.
_AWS = re.compile(
    r"(?:[\w.]+: )?An error occurred \((\w+)\) when calling |(?:[a-z]\w*\.)*(\w+Exception): "
)


@functools.cache  # not at every start: most runs do not fail
def _patterns(
    column: Literal["sentences", "phrases"],
) -> tuple[tuple[FailureClass, re.Pattern[str]], ...]:
    return tuple(
        (row.kind, re.compile("|".join(texts), re.IGNORECASE | re.DOTALL))
        for row in TABLE
        if (texts := getattr(row, column))
    )


_PHRASE_CHARS = 4_000
"""Of either end of a message, in which a phrase is looked for: a MiB would take seconds."""


def by_phrase(text: str) -> FailureClass | None:
    """The class that the message of an error names, or None."""
    if len(text) > 2 * _PHRASE_CHARS:
        text = f"{text[:_PHRASE_CHARS]}\n{text[-_PHRASE_CHARS:]}"
    text = _plain(text)
    return next((kind for kind, one in _patterns("phrases") if one.search(text)), None)


def by_sentence(line: str) -> FailureClass | None:
    """The class of a line that a known CLI prints as its last one; None for any other line."""
    line = _plain(line)
    before = _BEFORE.match(line)
    said = line[before.end() :] if before else line
    carried = _CARRIED.match(said)
    for text in (*([said[carried.end() :]] if carried else ()), said):
        for kind, one in _patterns("sentences"):
            if one.match(text):
                return kind
    status, sdk, aws = _named_status(line), _SDK.match(line), _AWS.match(line)
    if aws and (named := by_code(aws[1] or aws[2])):
        return named
    if status or sdk or _NAMED_BODY.match(line):
        words = by_phrase(line)
        if words is FailureClass.CONTEXT:  # no waiting makes a request fit, whatever its code
            return words
        return by_body(line) or words or by_status(status) or (by_code(sdk[1]) if sdk else None)
    return None


def mend_of(kind: FailureClass, message: str) -> str:
    """What a person can do about a failure of this class with this message."""
    if re.search(_AS_ROOT, message):
        return "let it run as another user than root, or set IS_SANDBOX=1 for it in a sandbox"
    return _MENDS.get(kind, "")


def _plain(text: str) -> str:
    """The text, bounded, with typewriter's apostrophes: CLIs print both kinds."""
    text = text if len(text) <= 2 * _READ_CHARS else text[:_READ_CHARS] + text[-_READ_CHARS:]
    return text.replace("\u2019", "'")


def _named_status(line: str) -> int:
    """The status at the head of an error that a CLI or an SDK names it in, else 0."""
    found = _NAMED_STATUS.search(line, 0, 160)
    if found is None or not (found.start() == 0 or _BEFORE.fullmatch(line, 0, found.start())):
        return 0
    return int(found.group(1))


def known_code(text: str) -> str:
    """The first code of an API's error body in the text that the table knows, or ""."""
    return next((code for code in _CODE.findall(_plain(text)) if by_code(code) is not None), "")


def by_body(text: str) -> FailureClass | None:
    """The class of the codes in an API's error body that the text holds, or None."""
    return by_code(known_code(text))


def by_code(code: str) -> FailureClass | None:
    """The class of an API's own code, or None."""
    return CODES.get(code.lower().rpartition("#")[2])


def by_status(status: int) -> FailureClass | None:
    """The class that an HTTP status stands for, or None."""
    return STATUSES.get(status)


def status_in(message: str) -> int:
    """The HTTP status that an error's message names, or 0."""
    found = _STATUS.search(message)
    return int(found.group(1)) if found else 0
