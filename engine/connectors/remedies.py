"""What to do about each trouble of a destination: the codes that `handoff destinations` shows, and their remedies.

The codes are a closed vocabulary: a connector never passes on a word of the far end that is not in a list of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

REMEDIES: Final[Mapping[str, str]] = {
    # every type
    "not-configured": "put it back into config.yaml, or `handoff destinations move NAME --to OTHER` or `discard NAME`",
    "connector-defect": "a defect of the engine: report the lines of the log at that time",
    "not-attempted": "the connection broke before anything was sent: look at the network",
    "interrupted": "the engine stopped in the middle: look there whether it arrived, then `handoff held`",
    "payload-damaged": "what was stored can't be read: see docs/guarantees.md, damaged rows",
    "key-missing": "put the key file back that `store.keys` names, then `handoff held release`",
    "asked-to-wait": "the far end asked for a pause: what waits goes out by itself; `destinations retry` tries at once",
    "too-late": "it was of no use any more when its turn came: tell the patient by other means, or dismiss it",
    "not-yet": "nothing: it is planned for later, and goes out by itself",
    "death-in-doubt": "a message about the patient's death waits for a person: `handoff held list`",
    "no-consent": "nothing: the patient has not agreed to be written to at that number (`handoff consent list KEY`)",
    "ground-gone": "nothing: the task, text or discharge that it hung on is no more",
    "moved-away": "nothing: the stay is another patient's now, and is told of under that one",
    "patient-deceased": "nothing: the patient has died; nothing is sent any more",
    "patient-merged": "its patient was merged into another: release it if it is right for that one, else dismiss it",
    "restricted": "its record is restricted, and `restricted` of the destination lets it have none of that: dismiss it,"
    " or release it with a reason",
    "part2_no_consent": "it is of a 42 CFR Part 2 program, and no consent of the patient covers the destination:"
    " `handoff consents add`, or dismiss it",
    "patient_refused": "the patient wants no notices of events sent there: dismiss it",
    "test-data": "nothing: it is of a test patient; `test_data` of the destination lets it have such",
    "chart-damaged": "rows of its patient can't be read: see docs/guarantees.md, damaged rows",
    "in-doubt": "nothing yet: the far end is asked whether it has it, and it goes out when it does not",
    "unreachable": "host, port and firewall: nobody takes a connection there",
    # mllp
    "connect-timeout": "host, port and firewall: packets to it vanish",
    "tls-files": "look at the files that `tls` of the destination names: they must be readable PEM",
    "tls-failed": "its certificate must be signed by `tls.ca` and name its host; it may want ours (`tls.cert`)",
    "no-answer": "it took the message and said nothing in `timeout_seconds`: look at its log",
    "connection-lost": "it closed the connection with a message in hand: look there, then `handoff held`",
    "answer-unreadable": "it answers with something that is no HL7 acknowledgment: is it the right port?",
    "answer-foreign": "its answers name other messages (MSA-2): it must return the control id of the message",
    "answer-without-control-id": "its answers name no message (MSA-2 is empty): have it return MSH-10 there",
    "answer-endless": "it sends without end and never an acknowledgment: is it the right port?",
    "answer-ae": "it refuses and says no reason: look at its log; `answers_without_code` says what that means",
    "answer-ar": "it rejects and says no reason: has it a filter? `answers_without_code` says what that means",
    "answer-ce": "it does not accept, and says no reason: look at its log",
    "answer-cr": "it rejects at once, and says no reason: look at its log",
    "answer-ae-207": "its application failed: look at its log",
    "answer-ar-207": "it can't take messages now: look at its log",
    # file
    "disk-full": "make room on the disk; what waits goes out by itself",
    "file-in-use": "another process writes there: two destinations, or two daemons, must not share a folder",
    "file-unusable": "folder and files must belong to the daemon's user and be writable for it",
    "file-foreign": "something in the folder is not a file of ours (a link, a pipe, another's): take it away",
    "write-failed": "the disk refuses: look at the system's log",
    # salesforce
    "login-unreachable": "look at `login_url`, the network and the proxy",
    "login-invalid-client": "the org does not know `client_id` and `client_secret` together: see the connected app",
    "login-invalid-client-id": "the org does not know `client_id`: see the connected app",
    "login-invalid-grant": "the user may not use the connected app, or is locked: see the org's log-in history",
    "login": "the org refuses the log-in: see its log-in history and the connected app",
    "private-key": "`private_key` must be an RSA key in PEM",
    "instance-insecure": "the org's address is not https: see `login_url`",
    "instance-foreign": "the log-in names a host that is not the org's: tell security; if it is right, add it to"
    " `instance_hosts`",
    "ca-unusable": "`ca` of the destination must be a readable PEM file",
    "session-refused": "the org refuses a token that it has just given: see the user's log-in hours and IP ranges",
    "request-limit-exceeded": "the org's daily limit of API calls is used up: calls come free again by themselves",
    "storage-limit-exceeded": "the org is full",
    "http-403": "the user lacks a permission, or a proxy is in the way: see docs/guides/destinations.md",
    "http": "the far end, or a proxy before it, answers with that HTTP status",
    "answer-lost": "the connection broke off in the middle of an answer: look at network and proxy",
    # carriers of texts
    "bad-number": "nobody can be texted there: put the patient's right number into the registration",
    "bad-number-21614": "it is a landline, which gets no texts: call, and put a mobile number into the registration",
    "bad-number-30006": "it is a landline, or its carrier takes none: call, and put a mobile number into the"
    " registration",
    "bad-region": "the account may not text numbers of that region: allow it at the carrier, or call",
    "bad-text": "the carrier does not carry these words: look at the template, and at links in it",
    "bad-text-30007": "a carrier took it for spam: never the same text again; look at its links, and at the"
    " registration of the number",
    "opted-out": "whoever has the number wants no texts from us: it is on record as such; reach them by other means",
    "needs-template": "WhatsApp takes free words for 24 hours after the patient's own: name an approved template in"
    " `whatsapp.templates`",
    "carrier-setup": "the account, its sender or its registration is not in order: look Twilio's code up there",
    "carrier-setup-20003": "Twilio does not know the account with this token: look at `account_sid` and `auth_token`",
    "carrier-setup-30034": "the number is not registered for texts of applications (A2P 10DLC): register it at Twilio",
    "carrier-busy": "what waits goes out by itself; a text that has failed with it does not: reach the patient by"
    " other means",
    "carrier-busy-30003": "the phone was off or out of reach: call; nothing is sent again by itself",
    "carrier-late": "the carrier could not send it in time: reach the patient by other means",
    "carrier-refused": "the carrier refuses it with a code that is not in our list: look it up in its documentation",
    "carrier-doubt": "the carrier does not know whether it has arrived: look there, then `handoff held`",
    "no-number": "the contact in `mappings/oncall/` has no `address`: give it the person's number",
    # webhook, pagerduty
    "answer-unfit": "what answers is not the Events API: look at `url`, and for a proxy in the way",
    "not-a-notification": "a channel delivers something else than notifications there: look at its `deliver`",
    "http-301": "its address has moved: write the new one into `url`; redirects are not followed",
    "http-302": "it sends us elsewhere: write the right address into `url`; redirects are not followed",
    "http-307": "it sends us elsewhere: write the right address into `url`; redirects are not followed",
    "http-308": "its address has moved: write the new one into `url`; redirects are not followed",
    "http-400": "it refuses this call: does it check with the same secret, and does it know the operation?",
    "http-401": "it does not know us: look at the secret or key of the destination",
    "http-404": "nothing is at that path: look at `url`",
    "http-410": "it says that it is no more: take the destination out, or write its new `url`",
    "http-429": "it asks for fewer calls: what waits goes out by itself",
    "results-mismatched": "the org's answer does not fit what it was sent: is a proxy in the way?",
}
"""By code, or by the beginning of one, up to a hyphen."""


def remedy(code: str | None) -> str | None:
    """What to do about a code; none: nothing is known to do."""
    while code:
        if (found := REMEDIES.get(code)) is not None:
            return found
        code = code.rpartition("-")[0]
    return None
