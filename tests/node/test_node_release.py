"""The release on a real node: mail through the Service, scaling, rolling restarts, upgrade, least rights."""

from __future__ import annotations

import base64
import json
import smtplib
import ssl
import threading
import time
import uuid
from collections import Counter
from typing import Any

import pytest

from testbed.process import ServerError

pytestmark = [pytest.mark.node, pytest.mark.timeout(900)]

MX, SUBMISSION = 25, 587
SENDER = "someone@sender.example"
ENOUGH_FOR_EACH = 200
ROLLOUT_SECONDS = 240
PATIENCE_SECONDS = 120.0

# Runs in the mailbox pod: waits until all marks are in a mailbox's mail, then prints that mail in base64.
_READ = """
import base64, json, os, sys, time
box, marks, seconds = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
folder = f"/var/mail/gatepost/mail/{box}/new"
known, deadline = {}, time.monotonic() + seconds
while True:
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if name not in known:
            known[name] = open(f"{folder}/{name}", "rb").read()
    found = {mark for mark in marks if any(mark.encode() in text for text in known.values())}
    if len(found) == len(marks) or time.monotonic() > deadline:
        break
    time.sleep(0.1)
print(json.dumps([base64.b64encode(text).decode() for text in known.values()]))
"""


def mailbox(release: Any, user: str, marks: list[str]) -> list[bytes]:
    """What is in a user's Maildir, once mail with all these texts has come (or PATIENCE_SECONDS have passed)."""
    words = ["python3", "-c", _READ, f"{user}@example.test", json.dumps(marks), str(PATIENCE_SECONDS)]
    output = release.kubectl("exec", "mail-gatepost-mailbox-local-0", "--", *words)
    return [base64.b64decode(text) for text in json.loads(output)]


def message(mark: str, to: str = "alice@example.test") -> bytes:
    return f"From: <{SENDER}>\r\nTo: <{to}>\r\nSubject: {mark}\r\n\r\nbody of {mark}\r\n".encode()


def send(release: Any, content: bytes, to: str = "alice@example.test") -> None:
    with smtplib.SMTP("127.0.0.1", release.port(MX), timeout=30) as session:
        session.sendmail(SENDER, [to], content, ["BODY=8BITMIME"])


def mark() -> str:
    return f"mark-{uuid.uuid4().hex}"


@pytest.mark.parametrize("component", ["edge", "router", "mailbox"])
def test_the_image_runs_machine_code(release: Any, component: str) -> None:
    pods = release.pods(component)
    assert pods
    for pod in pods:
        lines = [json.loads(line) for line in release.kubectl("logs", pod).splitlines() if line.startswith("{")]
        assert [line["code"] for line in lines if line.get("event") == "started"] == ["compiled"]


def test_a_message_arrives_byte_for_byte(release: Any) -> None:
    """From a client through the Service, an edge, Kafka, a router and the mailbox pod into alice's Maildir."""
    subject = mark()
    content = message(subject) + b".a dot\r\n..two\r\n.\r\n\ttab, trailing blanks  \r\n\xe5\x8f\x97\xff\x01\x7f\r\n"
    content += b"x" * 900 + b"\r\n\r\n"
    send(release, content)
    (stored,) = [one for one in mailbox(release, "alice", [subject]) if subject.encode() in one]
    assert stored.endswith(content)
    assert b"Received: from " in stored.removesuffix(content)


@pytest.mark.requirement("S2-5")
def test_a_user_submits_mail_with_password_over_tls(release: Any) -> None:
    """On 587, beside 25. Fails without the submission listener, its certificate, or its place in the Service."""
    subject = mark()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", release.port(SUBMISSION), timeout=30) as session:
        session.ehlo("client.example")
        assert not session.has_extn("auth")  # never in the clear
        session.starttls(context=context)
        session.ehlo("client.example")
        with pytest.raises(smtplib.SMTPAuthenticationError):
            session.login("alice@example.test", "wrong")
        session.login("alice@example.test", release.passwords["alice"])
        session.sendmail("alice@example.test", ["bob@example.test"], message(subject, "bob@example.test"))
    stored = mailbox(release, "bob", [subject])
    assert sum(subject.encode() in one for one in stored) == 1


def answer_to_recipient(release: Any, recipient: str) -> int:
    with smtplib.SMTP("127.0.0.1", release.port(MX), timeout=30) as session:
        session.ehlo("client.example")
        session.mail(SENDER)
        return session.rcpt(recipient)[0]


def test_unknown_users_and_foreign_domains_are_refused(release: Any) -> None:
    assert answer_to_recipient(release, "nobody@example.test") == 550
    assert answer_to_recipient(release, "someone@elsewhere.example") in (550, 554)
    assert answer_to_recipient(release, "alice@example.test") == 250


def test_kubectl_get_answers_whether_it_works(release: Any) -> None:
    columns = [line.split() for line in release.kubectl("get", "mdom,rpol").splitlines() if line]
    domains, policies = columns[:2], columns[2:]
    assert domains[0] == ["NAME", "DOMAIN", "DELIVERY", "ACCEPTED", "PROGRAMMED", "AGE"]
    assert domains[1][:5] == ["maildomain.gatepost.dev/example-test", "example.test", "Mailbox", "True", "True"]
    assert policies[0] == ["NAME", "TARGET", "LISTENERS", "MODE", "ACCEPTED", "PROGRAMMED", "AGE"]
    # No mode is written, so its cell is empty.
    assert {row[0].partition("/")[2]: (row[1], row[3:5]) for row in policies[1:]} == {
        "public-mx": ("Listeners", ["True", "True"]),
        "submission": ("Listeners", ["True", "True"]),
    }


def test_a_bad_object_is_refused_and_says_why(release: Any) -> None:
    """By the API server where the type is wrong, by a condition where only the whole can tell."""
    wrong = {
        "apiVersion": "gatepost.dev/v1alpha1",
        "kind": "MailDomain",
        "metadata": {"name": "wrong"},
        "spec": {
            "domain": "wrong.test",
            "recipients": {"source": {"type": "Directory", "directoryRef": {"name": "no-such"}}},
        },
    }
    release.kubectl("apply", "-f", "-", stdin=json.dumps(wrong))
    try:
        release.kubectl("wait", "--for=condition=ResolvedRefs=False", "maildomain/wrong", "--timeout=60s")
        conditions = {one["type"]: one for one in release.get("maildomain", "wrong")["status"]["conditions"]}
        assert "no-such" in conditions["ResolvedRefs"]["message"]
    finally:
        release.kubectl("delete", "maildomain", "wrong")
    wrong["spec"]["domian"] = "typo.test"
    with pytest.raises(ServerError, match="domian"):
        release.kubectl("create", "-f", "-", "--validate=strict", stdin=json.dumps(wrong))


def in_pod(release: Any, component: str, script: str) -> Any:
    """What a Python script that prints JSON says in the first pod of a service."""
    (pod, *_) = release.pods(component)
    return json.loads(release.kubectl("exec", pod, "--", "python3", "-c", f"import json, os\n{script}"))


SERVICES = ("edge", "router", "relay", "mailbox")
# Of the process with id 1, which is ours; the other one is the script.
_PROCESS = """
lines = open("/proc/1/status").read().splitlines()
fields = dict(line.split(":", 1) for line in lines if ":" in line)
facts = {name: fields[name].split()[0] for name in ("Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
facts["token"] = os.path.exists("/var/run/secrets/kubernetes.io")
facts["writable"] = [path for path in ("/", "/opt/gatepost/app", "/etc", "/usr/bin") if os.access(path, os.W_OK)]
v1, v2 = "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"
facts["memory"] = open(v1 if os.path.exists(v1) else v2).read().strip()
print(json.dumps(facts))
"""


@pytest.mark.requirement("S2-12")
@pytest.mark.requirement("S4-84")
def test_pods_are_restricted_and_hold_no_token(release: Any) -> None:
    """The namespace enforces the restricted Pod Security Standard; here is what a process in a pod then has.

    Fails without the pods' security context, memory limits, or `automountServiceAccountToken: false`.
    """
    for component in SERVICES:
        facts = in_pod(release, component, _PROCESS)
        assert (facts["Uid"], facts["NoNewPrivs"], facts["Seccomp"]) == ("10001", "1", "2"), component
        assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0, component
        assert facts["token"] is False, component
        assert facts["writable"] == [], component
        assert int(facts["memory"]) <= 1024**3, component


# Listening TCP sockets of all addresses: state 0A in the kernel's table.
_LISTENING = """
ports = set()
for table in ("/proc/net/tcp", "/proc/net/tcp6"):
    for line in open(table).read().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            ports.add(int(fields[1].rpartition(":")[2], 16))
programs = []
for one in filter(str.isdigit, os.listdir("/proc")):
    if int(one) != os.getpid():
        programs.append(open(f"/proc/{one}/cmdline").read().split("\\0")[1])
files = ("/var/mail/gatepost", "/etc/gatepost/tls", "/etc/gatepost/directories")
print(json.dumps([sorted(ports), programs, [path for path in files if os.path.exists(path)]]))
"""


@pytest.mark.requirement("S1-13")
@pytest.mark.requirement("S2-26")
def test_each_pod_runs_one_program_with_only_its_own_files(release: Any) -> None:
    """Fails without separate programs, mounts and ports for receiving, routing, sending and storing."""
    program, admin = ["/usr/local/bin/gatepost"], 8025
    users, tls, mail = "/etc/gatepost/directories", "/etc/gatepost/tls", "/var/mail/gatepost"
    assert in_pod(release, "edge", _LISTENING) == [[2525, 2587, admin], program, [tls, users]]
    assert in_pod(release, "router", _LISTENING) == [[admin], program, [users]]
    assert in_pod(release, "relay", _LISTENING) == [[admin], program, []]
    assert in_pod(release, "mailbox", _LISTENING) == [[admin], program, [mail]]


def test_accounts_may_do_what_they_must_and_no_more(release: Any) -> None:
    def may(account: str, *words: str) -> bool:
        name = f"system:serviceaccount:{release.namespace}:{account}"
        try:
            return release.kubectl("auth", "can-i", "--as", name, *words).strip() == "yes"
        except ServerError:
            return False

    operator, services = "mail-gatepost-operator", "mail-gatepost"
    assert may(operator, "watch", "maildomains.gatepost.dev")
    assert may(operator, "patch", "maildomains.gatepost.dev", "--subresource=status")
    for words in (
        ["get", "secrets"],
        ["list", "pods"],
        ["patch", "maildomains.gatepost.dev"],
        ["update", "leases.coordination.k8s.io/another"],
        ["list", "maildomains.gatepost.dev", "--all-namespaces"],
    ):
        assert not may(operator, *words), words
    for words in (["get", "maildomains.gatepost.dev"], ["get", "configmaps"], ["list", "pods"]):
        assert not may(services, *words), words


def test_helm_test_passes_and_sends_a_message(release: Any) -> None:
    before = sum(b"helm test" in one for one in mailbox(release, "alice", []))
    assert "Succeeded" in release.helm("test", release.name, "--timeout", "120s")
    after = mailbox(release, "alice", ["This message was sent by helm test."])
    assert sum(b"helm test" in one for one in after) >= before + 1


def test_kubectl_scale_makes_more_edges_that_all_take_mail(release: Any) -> None:
    """And a `helm upgrade` afterwards leaves their number alone."""
    release.kubectl("scale", "deployment/mail-gatepost-edge", "--replicas=3")
    release.kubectl("rollout", "status", "deployment/mail-gatepost-edge", f"--timeout={ROLLOUT_SECONDS}s")
    edges = release.pods("edge")
    assert len(edges) == 3
    before = {pod: release.metric(pod, "gatepost_edge_messages_total") for pod in edges}
    sent: list[str] = []
    waiting = set(edges)
    while waiting and len(sent) < ENOUGH_FOR_EACH:
        for _ in range(10):
            sent.append(mark())
            send(release, message(sent[-1]))
        waiting = {pod for pod in waiting if release.metric(pod, "gatepost_edge_messages_total") == before[pod]}
    assert not waiting, f"{len(sent)} messages, and none through {waiting}"
    stored = b"".join(mailbox(release, "alice", sent))
    assert [one for one in sent if f"Subject: {one}".encode() not in stored] == []

    release.upgrade("--set", "podDisruptionBudget.maxUnavailable=2")
    assert release.get("poddisruptionbudget", "mail-gatepost-edge")["spec"]["maxUnavailable"] == 2
    assert release.get("deployment", "mail-gatepost-edge")["spec"]["replicas"] == 3
    # Two, so that later tests see both more than one and a quick rollout.
    release.kubectl("scale", "deployment/mail-gatepost-edge", "--replicas=2")


def await_log(release: Any) -> None:
    """Wait until every edge has the log."""
    deadline = time.monotonic() + ROLLOUT_SECONDS
    for pod in release.pods("edge"):
        while release.metric(pod, "gatepost_log_available") != 1:
            assert time.monotonic() < deadline, f"{pod} has no log"
            time.sleep(0.1)


class Trickle(threading.Thread):
    """A client that sends one message after another, each on its own connection, until it is told to stop.

    What was not answered with 250 is tried again, as any client would; the message is known by its Message-ID.
    """

    def __init__(self, release: Any) -> None:
        super().__init__(daemon=True)
        self.release = release
        self.accepted: list[str] = []
        self.uncertain: set[str] = set()
        self.temporary: list[str] = []
        self.faults: list[str] = []
        self._stop_asked = threading.Event()
        self._wanted = threading.Semaphore(0)
        self.release.port(MX)

    def run(self) -> None:
        while not self._stop_asked.is_set():
            one = mark()
            while not self._try(one):
                if self._stop_asked.wait(0.05):
                    self.uncertain.add(one)
                    return

    def _try(self, one: str) -> bool:
        try:
            send(self.release, b"Message-ID: <%s@example.org>\r\n" % one.encode() + message(one))
        except smtplib.SMTPResponseException as error:
            # 421 or 451: what a client gets from a pod that is stopping. 5xx would be a lost message.
            what = f"{error.smtp_code} {error.smtp_error!r}"
            (self.temporary if error.smtp_code < 500 else self.faults).append(what)
            return False
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            (self.temporary if max(codes) < 500 else self.faults).append(f"{codes}")
            return False
        except (OSError, smtplib.SMTPException) as error:
            # The answer to the final dot may be what was lost.
            self.uncertain.add(one)
            self.temporary.append(type(error).__name__)
            return False
        self.accepted.append(one)
        self._wanted.release()
        return True

    def await_accepted(self, count: int) -> None:
        """Wait until so many have been answered with 250 from now on."""
        deadline = time.monotonic() + ROLLOUT_SECONDS
        while self._wanted.acquire(blocking=False):
            pass
        for _ in range(count):
            assert self._wanted.acquire(timeout=max(0.0, deadline - time.monotonic())), self.temporary

    def finish(self) -> None:
        self._stop_asked.set()
        self.join(ROLLOUT_SECONDS)
        assert not self.is_alive()


@pytest.mark.requirement("S2-33")
@pytest.mark.parametrize("component", ["edge", "router", "mailbox", "kafka", "operator"])
def test_a_rolling_restart_under_mail_loses_nothing(release: Any, component: str) -> None:
    """Every message that got 250 is in the Maildir exactly once, whatever was restarted meanwhile.

    Fails without programs that can be replaced one by one, each ending its work before it ends.
    """
    kind = "statefulset" if component in ("mailbox", "kafka") else "deployment"
    what = f"{kind}/mail-gatepost-{component}{'-local' if component == 'mailbox' else ''}"
    trickle = Trickle(release)
    trickle.start()
    try:
        trickle.await_accepted(5)
        release.kubectl("rollout", "restart", what)
        release.kubectl("rollout", "status", what, f"--timeout={ROLLOUT_SECONDS}s")
        await_log(release)
        trickle.await_accepted(10)
    finally:
        trickle.finish()
    assert trickle.faults == []
    stored = mailbox(release, "alice", trickle.accepted)
    copies = Counter(line for one in stored for line in one.splitlines() if line.startswith(b"Subject: mark-"))
    lost = [one for one in trickle.accepted if not copies[f"Subject: {one}".encode()]]
    assert lost == [], f"{len(lost)} of {len(trickle.accepted)} messages with 250 are lost"
    certain = set(trickle.accepted) - trickle.uncertain
    assert [one for one in certain if copies[f"Subject: {one}".encode()] > 1] == []
    if component not in ("edge", "kafka"):
        assert trickle.temporary == []  # clients notice nothing


@pytest.mark.requirement("S0-61")
def test_mail_waits_while_its_store_is_away_and_everything_restarts(release: Any) -> None:
    """Fails without durable appends, or if routers and mailbox pods don't go on where they were."""
    mailboxes = "statefulset/mail-gatepost-mailbox-local"
    others = ("deployment/mail-gatepost-router", "statefulset/mail-gatepost-kafka")
    release.kubectl("scale", mailboxes, "--replicas=0")
    release.kubectl("wait", "--for=delete", "pod/mail-gatepost-mailbox-local-0", f"--timeout={ROLLOUT_SECONDS}s")
    waiting = [mark() for _ in range(5)]
    for one in waiting:
        send(release, message(one))
    for what in others:
        release.kubectl("rollout", "restart", what)
        release.kubectl("rollout", "status", what, f"--timeout={ROLLOUT_SECONDS}s")
    release.kubectl("scale", mailboxes, "--replicas=1")
    release.kubectl("rollout", "status", mailboxes, f"--timeout={ROLLOUT_SECONDS}s")
    stored = mailbox(release, "alice", waiting)
    assert [sum(f"Subject: {one}".encode() in text for text in stored) for one in waiting] == [1] * 5


@pytest.mark.requirement("S2-32")
@pytest.mark.parametrize("component", ["edge", "mailbox"])
def test_a_killed_program_is_started_again(release: Any, component: str) -> None:
    """Fails without Kubernetes as supervisor, or if a pod can't start on what a killed one left behind."""
    (pod, *_) = release.pods(component)

    def started() -> tuple[int, bool]:
        (status,) = release.get("pod", pod)["status"]["containerStatuses"]
        return status["restartCount"], status["ready"]

    (before, _) = started()
    release.kill9(pod)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while started() != (before + 1, True):
        assert time.monotonic() < deadline, release.diagnosis()
        time.sleep(0.2)
    table = [line.split() for line in release.kubectl("get", "pod", pod).splitlines()]
    assert table[0][:4] == ["NAME", "READY", "STATUS", "RESTARTS"]
    assert table[1][1:4] == ["1/1", "Running", str(before + 1)]
    subject = mark()
    send(release, message(subject))
    assert any(subject.encode() in one for one in mailbox(release, "alice", [subject]))


def test_the_api_server_takes_every_object_of_the_chart(release: Any) -> None:
    """With all values set; only Prometheus' own kinds are unknown here."""
    values = release.repository / "tests" / "chart" / "values" / "everything.yaml"
    more = ["serviceMonitor", "prometheusRule"]
    without = [word for name in more for word in ("--set", f"monitoring.{name}.enabled=false")]
    rendered = release.helm("template", "another", release.chart, "-f", values, *without, "--no-hooks")
    words = ["--dry-run=server", "--validate=strict", "-o", "name", "-f", "-"]
    taken = release.kubectl("apply", *words, stdin=rendered).split()
    assert len(taken) == rendered.count("\nkind: ")
    assert "horizontalpodautoscaler.autoscaling/another-gatepost-edge" in taken


def test_an_upgrade_with_changed_settings_rolls_the_pods(release: Any) -> None:
    """From then on the store's pod routes as well, with the directories that it had not before."""
    old = {component: set(release.pods(component)) for component in ("edge", "router", "relay", "mailbox")}
    uids = {pod: release.get("pod", pod)["metadata"]["uid"] for pods in old.values() for pod in pods}
    release.upgrade("--set", "settings.limits.sessions=777", "--set", "stores.local.maildir.routes=true")
    for component, before in old.items():
        now = {release.get("pod", pod)["metadata"]["uid"] for pod in release.pods(component)}
        assert not now & {uids[pod] for pod in before}, f"{component} still runs the old settings"
    assert "sessions: 777" in release.kubectl("get", "configmap", "mail-gatepost", "-o", "yaml")
    # Without a key a message is routed by whoever has the partition that it came into.
    routers = [f"pod/{pod}" for pod in release.pods("router")]
    release.kubectl("scale", "deployment/mail-gatepost-router", "--replicas=0")
    release.kubectl("wait", "--for=delete", *routers, f"--timeout={ROLLOUT_SECONDS}s")
    subject = mark()
    send(release, message(subject))
    assert any(subject.encode() in one for one in mailbox(release, "alice", [subject]))
    assert release.metric("mail-gatepost-mailbox-local-0", "gatepost_router_copies_total") >= 1


def test_a_renewed_account_is_known_without_a_restart(release: Any) -> None:
    """A Secret that changes reaches the running pods, since it is mounted as a folder."""
    secret = release.get("secret", "users")
    users = base64.b64decode(secret["data"]["users.ldif"]).decode()
    entry = "\ndn: uid=carol,dc=example,dc=test\nobjectClass: inetOrgPerson\nobjectClass: inetLocalMailRecipient\n"
    entry += "uid: carol\ncn: carol\nsn: carol\nmailLocalAddress: carol@example.test\n"
    secret["data"]["users.ldif"] = base64.b64encode((users + entry).encode()).decode()
    assert answer_to_recipient(release, "carol@example.test") == 550
    release.kubectl("replace", "-f", "-", stdin=json.dumps(secret))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while answer_to_recipient(release, "carol@example.test") != 250:
        assert time.monotonic() < deadline, "the kubelet did not deliver the Secret"
        time.sleep(0.5)
