"""rspamd with three rules of its own, told by header fields of a message what to say of it. Ready in a second.

Debian's rules are left out: they need 20 s of compiling at a first start, and say something else with each version.
"""

from pathlib import Path

from testbed import ports
from testbed.process import Server
from testbed.provision import apt
from testbed.running import Running
from testbed.user import forget, ordinary, reachable

# rspamd's own test message, always rejected.
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*" + b"GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
REJECT_SCORE, ADD_HEADER_SCORE, GREYLIST_SCORE = 15, 6, 4
HIGHEST_SCORE = 20  # what rspamd names as required is its highest limit
MAX_MESSAGE = 4 * 2**20  # bytes; more is refused

# X-Points: a number to add; X-Action: an action to take; X-Envelope: what was told of the session goes to the log.
RULES = """
local log = require "rspamd_logger"
rspamd_config:register_symbol({ name = 'TEST_POINTS', type = 'normal', score = 1.0, callback = function(task)
  local points = task:get_header('X-Points')
  if points then return true, tonumber(points) end
  return false
end })
rspamd_config:register_symbol({ name = 'TEST_ACTION', type = 'prefilter', callback = function(task)
  local action = task:get_header('X-Action')
  if action then task:set_pre_result(action, 'the message asks for it') end
end })
rspamd_config:register_symbol({ name = 'TEST_ENVELOPE', type = 'normal', score = 0.0, callback = function(task)
  if not task:get_header('X-Envelope') then return false end
  local rcpts = {}
  for _, r in ipairs(task:get_recipients('smtp') or {}) do table.insert(rcpts, r.addr) end
  log.errx(task, 'ENVELOPE from=%s to=%s ip=%s helo=%s host=%s user=%s id=%s',
    (task:get_from('smtp') or {{addr='none'}})[1].addr, table.concat(rcpts, ','), tostring(task:get_from_ip()),
    task:get_helo() or '', task:get_hostname() or '', task:get_user() or '', task:get_queue_id() or '')
  return true
end })
"""


class Rspamd(Running):
    """One rspamd in `folder`, a context manager. Attributes: `url`, `server` (its log holds what RULES write)."""

    def __init__(self, folder: Path) -> None:
        apt.install("servers")
        self._user = ordinary()
        self._folder, self._outside = reachable(folder, self._user)
        self._port, self._nobody = ports.reserve(), ports.reserve()
        self.url = f"http://127.0.0.1:{self._port}"
        here = self._folder
        (here / "rules.lua").write_text(RULES)
        (here / "tld").write_text("com\norg\ntest\nexample\n")
        settings = here / "rspamd.conf"
        settings.write_text(
            f'options {{ pidfile = "{here}/rspamd.pid"; tempdir = "{here}"; filters = [];\n'
            f'  dns {{ nameserver = ["127.0.0.1:{self._nobody}"]; timeout = 0.2s; retransmits = 1; }}\n'
            f'  url_tld = "{here}/tld"; hs_cache_dir = "{here}"; max_message = {MAX_MESSAGE}; }}\n'
            'logging { type = "console"; level = "notice"; color = false; }\n'
            f"actions {{ reject = {REJECT_SCORE}; add_header = {ADD_HEADER_SCORE}; greylist = {GREYLIST_SCORE};\n"
            f"  quarantine = 12; discard = {HIGHEST_SCORE}; }}\n"
            f'metric {{ name = "default"; }}\nlua = "{here}/rules.lua";\n'
            f'worker "normal" {{ bind_socket = "127.0.0.1:{self._port}"; count = 1; task_timeout = 8s; }}\n'
        )
        self._user.own(here)
        variables = [f"--var={name}={here}" for name in ("DBDIR", "RUNDIR", "LOGDIR")]
        self.server = Server(
            "rspamd",
            ["/usr/bin/rspamd", "-f", "-c", settings, *variables],
            here,
            ports=[self._port],
            user=self._user,
            death_signal="TERM",  # its workers are processes of their own
        )

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.stop()
        ports.release(self._port)
        ports.release(self._nobody)
        forget(self._folder, self._outside)
