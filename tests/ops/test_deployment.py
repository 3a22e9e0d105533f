"""What runs the stack is held against the stack: probes, ports, variables, drain times, metrics."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.app import DOORS
from gateway.config_file import VARIABLES, load
from gateway.metrics import Metrics
from gateway.setup import make_setup
from model.server.routes import ENDPOINTS

ROOT = Path(__file__).parent.parent.parent
OPS = ROOT / "ops"
PRODUCTION = tomllib.loads((OPS / "production.toml").read_text())
VARIANTS = ("base", "model", "vllm")


def manifests() -> Iterator[dict[str, Any]]:
    for path in sorted((OPS / "kubernetes").glob("*/*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


def containers() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(pod, container) of every workload."""
    pods = [
        it["spec"]["template"]["spec"] for it in manifests() if "template" in it.get("spec", {})
    ]
    return [(pod, container) for pod in pods for container in pod["containers"]]


def compose() -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((OPS / "compose.yaml").read_text())
    return made


def test_probes_ask_for_routes_that_are_there() -> None:
    ours = {it.path for it in DOORS} | {it.path for it in ENDPOINTS}
    for _, container in containers():
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[name]["httpGet"]["path"] in ours
    for name in ("gateway", "model"):
        asked = " ".join(compose()["services"][name]["healthcheck"]["test"])
        assert re.search(r":\d+(/[a-z/]+)'", asked)[1] in ours  # type: ignore[index]


def test_pods_get_the_time_that_a_drain_takes() -> None:
    server = PRODUCTION["server"]
    for pod, container in containers():
        drain = container["lifecycle"]["preStop"]["sleep"]["seconds"] + 30
        if container["name"] == "gateway":
            drain += server["drain_delay_s"] + server["drain_s"] - 30
        assert pod["terminationGracePeriodSeconds"] > drain
    grace = int(compose()["services"]["gateway"]["stop_grace_period"].rstrip("s"))
    assert grace > server["drain_delay_s"] + server["drain_s"]


def test_the_autoscaler_counts_what_the_gateway_tells() -> None:
    (scaler,) = (it for it in manifests() if it["kind"] == "HorizontalPodAutoscaler")
    (metric,) = scaler["spec"]["metrics"]
    known = {it.name for it in Metrics().registry.collect()}
    assert metric["pods"]["metric"]["name"] in known
    most = PRODUCTION["server"]["max_in_flight"]
    assert int(metric["pods"]["target"]["averageValue"]) * 2 <= most


def test_every_variable_is_read_by_somebody() -> None:
    known = {*VARIABLES, "GLASSGATE_CONFIG", "GLASSGATE_HOME"}
    known |= {it["env"] for it in PRODUCTION["keys"].values()}
    for path in (OPS / "Dockerfile", OPS / "compose.yaml", OPS / "systemd/glassgate.service"):
        assert set(re.findall(r"GLASSGATE_\w+", path.read_text())) <= known, path


@pytest.mark.parametrize("path", ["production.toml", "kubernetes/vllm/gateway.toml"])
def test_configs_can_be_read(path: str) -> None:
    setup = make_setup(load(OPS / path, env={}))
    assert setup.config.server.host == "0.0.0.0"
    assert setup.config.keys


def test_nothing_runs_as_root_or_by_an_unpinned_image() -> None:
    lines = (OPS / "Dockerfile").read_text().splitlines()
    assert [it for it in lines if it.startswith("USER")] == ["USER 10001:10001"]
    for pod, container in containers():
        assert re.fullmatch(r"glassgate|\S+:v?\d\S*", container["image"])
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        if container["image"] == "glassgate":
            assert pod["securityContext"]["runAsUser"] == 10001
            assert container["securityContext"]["readOnlyRootFilesystem"]
    for service in compose()["services"].values():
        assert re.fullmatch(r"glassgate|\S+:(v|pg)?\d\S*", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_what_is_copied_and_mounted_is_there() -> None:
    for line in (OPS / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY") and "--from" not in line:
            missing = [it for it in line.split()[1:-1] if not (ROOT / it).exists()]
            assert not [it for it in missing if not it.startswith("requirements/")]
    mounts = [it for one in compose()["services"].values() for it in one.get("volumes", ())]
    here = [OPS / it.split(":")[0] for it in mounts if it.startswith("./")]
    assert here
    assert all(it.exists() for it in here)
    scraping = yaml.safe_load((OPS / "docker" / "prometheus.yml").read_text())
    for path in scraping["rule_files"]:
        assert (OPS / "prometheus" / Path(path).name).is_file()
    (source,) = yaml.safe_load((OPS / "docker" / "grafana-datasource.yaml").read_text())[
        "datasources"
    ]
    for path in (OPS / "grafana").glob("*.json"):
        assert f'"uid": "{source["uid"]}"' in path.read_text()


def test_prometheus_keeps_what_the_dashboards_show() -> None:
    service = compose()["services"]["prometheus"]
    flags = dict(it.removeprefix("--").split("=") for it in service["command"])
    places = {it.split(":")[1] for it in service["volumes"]}
    assert {flags["config.file"], flags["storage.tsdb.path"]} <= places
    assert '"exemplar": true' in (OPS / "grafana" / "gateway.json").read_text()
    assert flags["enable-feature"] == "exemplar-storage"


def test_systemd_likes_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not here")
    text = (OPS / "systemd/glassgate.service").read_text()
    unit = tmp_path / "glassgate.service"
    unit.write_text(text.replace("/opt/glassgate/bin/glassgate", sys.executable))
    done = subprocess.run([program, "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    command = [program, "security", "--offline=true", "--threshold=20", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout  # exposed by at most 2.0 of 10


def program(name: str) -> str:
    """A tool of requirements/ops.txt, which `make test-services` installs."""
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = shutil.which(name, path=beside)
    if found is None:
        pytest.skip(f"{name} is not here: it comes with requirements/ops.txt")
    return found


@pytest.mark.services
def test_hadolint_likes_the_dockerfile() -> None:
    subprocess.run([program("hadolint"), str(OPS / "Dockerfile")], check=True)


@pytest.mark.services
@pytest.mark.parametrize("variant", VARIANTS)
def test_kubernetes_takes_every_variant(variant: str, tmp_path: Path) -> None:
    # Debian's kubectl, if there is one, is too old; the wheel's lies beside Python.
    build = [program("kubectl"), "kustomize", str(OPS / "kubernetes" / variant)]
    made = subprocess.run(build, check=True, capture_output=True, text=True).stdout
    (tmp_path / "all.yaml").write_text(made)
    check = [program("kubernetes-validate"), "--strict", str(tmp_path / "all.yaml")]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = {it["kind"] for it in yaml.safe_load_all(made)}
    assert {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"} <= kinds
