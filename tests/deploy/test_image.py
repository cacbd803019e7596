"""The image that ``make image`` has built: what is in it, and that it serves as the documents say to run it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid

import httpx
import pytest
import yaml

from benchmarks.serving import free_port
from tests.conftest import ROOT
from tests.e2e.test_sample_visit import sample_files
from tests.service.serving import ADMIN, Served, until

pytestmark = pytest.mark.image
PODMAN = shutil.which("podman")
MAX_BYTES = 1e9
PAGE = (ROOT / "docs/how-to/deploy.md").read_text("utf-8")
UNDER_GPL = ("libreadline", "libgdbm")
"""Libraries of the base under the GPL that modules of Python's own would load."""


def podman(*arguments, check=True):
    done = subprocess.run([PODMAN, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image():
    if PODMAN is None:
        pytest.skip("podman is not installed: no image is started in this run")
    if not podman("images", "--quiet", "sangloc"):
        pytest.skip("there is no image: make image")
    return json.loads(podman("image", "inspect", "sangloc"))[0]


class Container:
    """The image, run by the command of the page, at a free port of this machine, with a volume of its own."""

    def __init__(self, volume, *more, network=(), **environment):
        told = re.search(r"^podman run --detach .*(?:\n {7}.*)*", PAGE, re.MULTILINE)[0].replace("\\", "").split()
        self.name, self.port = f"sangloc-{uuid.uuid4().hex}", free_port()
        changed = {
            "sangloc:/var/lib/sangloc": f"{volume}:/var/lib/sangloc",
            "127.0.0.1:8080:8080": f"127.0.0.1:{self.port}:8080",
            "always": "no",
        }
        options = [changed.get(each, each) for each in told[2:-1]]
        options[options.index("--name") + 1] = self.name
        if network:
            at = options.index("--publish")
            options[at : at + 2] = network
            environment |= {"SANGLOC_HOST": "127.0.0.1", "SANGLOC_PORT": str(self.port)}
        given = [f"--env={name}={value}" for name, value in environment.items()]
        podman("run", *options, *given, f"--env=SANGLOC_BOOTSTRAP_KEY={ADMIN}", *more, "sangloc")
        self.served = Served(f"http://127.0.0.1:{self.port}")

    def until_ready(self):
        until(self._answers, 240)
        return self

    def _answers(self):
        assert self.state()["Running"], podman("logs", self.name, check=False)[-2000:]
        try:
            return httpx.get(f"{self.served.address}/readyz", verify=False, timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    def state(self):
        return json.loads(podman("inspect", self.name))[0]["State"]

    def run(self, *command, check=True):
        return podman("exec", self.name, *command, check=check)

    def stop(self):
        podman("stop", self.name)
        return self.state()["ExitCode"]


@pytest.fixture
def new_container(image):
    made, volume = [], f"sangloc-{uuid.uuid4().hex}"

    def make(*more, **given):
        made.append(Container(volume, *more, **given))
        return made[-1]

    yield make
    for each in made:
        podman("rm", "--force", each.name, check=False)
    podman("volume", "rm", "--force", volume, check=False)


def within(*command):
    """What a command of root in the image prints."""
    options = ("--rm", "--user=0", "--read-only", "--network=none")
    return podman("run", *options, "--entrypoint", command[0], "sangloc", *command[1:])


# ---------------------------------------------------------------- what is in it
def test_it_is_small_and_of_a_user_who_may_nothing(image):
    assert image["Size"] < MAX_BYTES
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["StopSignal"] == "SIGTERM"


def test_it_has_the_packages_of_its_bill_and_no_other(image):
    script = (
        "import json; from importlib.metadata import distributions\n"
        "print(json.dumps({each.name: each.version for each in distributions()}))"
    )
    installed = json.loads(within("python", "-c", script))
    bill = json.loads(within("cat", "/opt/sangloc/sbom.cdx.json"))
    told = {kind: {} for kind in ("pypi", "deb")}
    for each in bill["components"]:
        told[each["purl"].split("/")[0].removeprefix("pkg:")][each["name"]] = each["version"]
    assert installed == told["pypi"]
    of_debian = within("dpkg-query", "--show", "--showformat=${Package} ${Version}\n")
    assert dict(line.split() for line in of_debian.splitlines()) == told["deb"]
    assert not {"torch", "monai", "pip", "setuptools", "gcc", "g++", "make"} & {*told["pypi"], *told["deb"]}


def test_each_package_of_the_base_has_its_licence(image):
    names = within("dpkg-query", "--show", "--showformat=${Package}\n").split()
    texts = within("find", "-L", "/usr/share/doc", "-name", "copyright", "-size", "+0").split()
    assert {f"/usr/share/doc/{name}/copyright" for name in names} <= set(texts)


def test_nothing_is_left_of_its_making(image):
    tree = within("find", "/root", "/home", "/tmp", "/var/cache/apt", "/var/lib/apt/lists", "-type", "f")
    assert [path for path in tree.splitlines() if not re.search(r"/\.(bashrc|profile)$|/lock$", path)] == []
    owned = within("find", "/opt", "/usr", "/etc", "-not", "-user", "root")
    assert owned == "", "the service could change its own code"


# ---------------------------------------------------------------- that it serves
def test_it_serves_without_privileges_on_a_root_that_nobody_writes_to(new_container, record_property):
    container = new_container().until_ready()
    status = dict(line.split(":\t", 1) for line in container.run("cat", "/proc/self/status").splitlines())
    assert status["Uid"].split() == ["10001"] * 4
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (0, 0, "1")
    for folder in ("/", "/opt/sangloc", "/etc", "/usr", "/var"):
        assert container.run("touch", f"{folder}/written", check=False) == ""
        assert container.run("find", folder, "-maxdepth", "1", "-name", "written") == "", folder
    container.run("touch", "/tmp/written", "/var/lib/sangloc/written")

    with container.served.client() as client:
        answer = client.post("/v1/visits", files=sample_files(), headers={"Prefer": "wait=60"})
        visit = answer.json()
        assert (answer.status_code, visit["status"]) == (201, "complete")
        assert {name: organ["status"] for name, organ in visit["organs"].items()} == dict.fromkeys(
            ("lung", "cardiac", "kidney"), "assessed"
        )
        assert client.get(f"/v1/visits/{visit['id']}/report.pdf").content.startswith(b"%PDF")
    pids = [pid for pid in container.run("ls", "/proc").split() if pid.isdigit()]
    maps = "".join(container.run("cat", f"/proc/{pid}/maps", check=False) for pid in pids)
    assert "libopenvino_intel_cpu_plugin" in maps
    assert not [name for name in UNDER_GPL if name in maps]
    used = podman("stats", "--no-stream", "--format", "{{.MemUsage}}", container.name)
    record_property("memory", used)
    print(f"{used} used; the image has {podman('image', 'inspect', '--format', '{{.Size}}', 'sangloc')} bytes")

    assert container.stop() == 0
    podman("start", container.name)
    container.until_ready()
    with container.served.client() as client:
        assert client.get(f"/v1/visits/{visit['id']}").json()["status"] == "complete"
    assert container.stop() == 0


def test_two_share_a_postgresql_and_an_s3_server(new_container, own_postgres, s3):
    own_postgres.folder.chmod(0o711)
    address = own_postgres.new_database()
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text("utf-8"))["services"]
    host = ("--network=host",)
    folder = f"--volume={own_postgres.folder}:{own_postgres.folder}"
    given = {"SANGLOC_DATABASE_URL": address, "SANGLOC_STORE_URL": "s3://visits", **s3.environment}
    environment = [f"--env={name}={value}" for name, value in s3.environment.items()]
    for _ in range(2):
        podman("run", "--rm", "--read-only", *host, *environment, "sangloc", *services["bucket"]["command"])

    first, second = (new_container(folder, network=host, **given) for _ in range(2))
    first.until_ready()
    second.until_ready()
    with first.served.client() as one, second.served.client() as other:
        visit = one.post("/v1/visits", files=sample_files(), headers={"Prefer": "wait=60"}).json()
        assert other.get(f"/v1/visits/{visit['id']}").json()["status"] == "complete"
    assert s3.names(), "files are not in the bucket"
    job = yaml.safe_load((ROOT / "deploy/kubernetes/upgrade.yaml").read_text("utf-8"))
    (upgrade,) = job["spec"]["template"]["spec"]["containers"]
    assert re.fullmatch(r"\d{4} -> \d{4}", first.run(*upgrade["args"]))
    assert (first.stop(), second.stop()) == (0, 0)
