"""What a process reads, what it refuses, and in which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from offchainvm.errors import SettingsError
from offchainvm.settings import Role, Settings, load, load_only, setting_table

REQUIRED = {row.name: row.roles for row in setting_table() if row.required}

# A value other than the default for every setting, as text and as what it becomes.
OTHER_VALUES = {
    "API_BASE_URL": ("https://coordinator.example:8443/base/", "https://coordinator.example:8443/base"),
    "API_AUTH_TOKEN": ("t0ken", "t0ken"),
    "NEAR_RPC_URL": ("https://one.example/, http://two.example", ("https://one.example", "http://two.example")),
    "OFFCHAINVM_CONTRACT_ID": ("vm.example.near", "vm.example.near"),
    "OPERATOR_ACCOUNT_ID": ("your-company.near", "your-company.near"),
    "WORKER_ID": ("worker-7", "worker-7"),
    "REDIS_URL": ("rediss://:pass@redis.example:6380/2", "rediss://:pass@redis.example:6380/2"),
    "BROKER_URL": ("amqp://broker.example", "amqp://broker.example"),
    "STATE_DIR": ("/var/lib/offchainvm", Path("/var/lib/offchainvm")),
    "LOG_LEVEL": ("DEBUG", "debug"),
    "LOG_FORMAT": ("json", "json"),
    "METRICS_PORT": ("9100", 9100),
    "TASK_EVENTS": ("true", True),
    "JOB_RETENTION_HOURS": ("1", 1),
    "CA_BUNDLE": (DEFAULT_CA_BUNDLE_PATH, Path(DEFAULT_CA_BUNDLE_PATH)),
    "POLL_TIMEOUT_SECONDS": ("300", 300),
    "POLL_CONCURRENCY": ("1", 1),
    "QUEUE_HIGH_WATER": ("5", 5),
    "FAIR_SHARE": ("false", False),
    "ALLOW_SENDERS": ("alice.near, *.team.near", ("alice.near", "*.team.near")),
    "DENY_SENDERS": ("*.near", ("*.near",)),
    "ALLOW_REPOSITORIES": ("near-examples/*, someone/tool-?", ("near-examples/*", "someone/tool-?")),
    "DENY_REPOSITORIES": ("*/mine*", ("*/mine*",)),
    "ENABLE_EVENT_MONITOR": ("yes", True),
    "NEARDATA_API_URL": ("https://blocks.example/v0/block", "https://blocks.example/v0/block"),
    "NEARDATA_API_KEY": ("k3y", "k3y"),
    "NEARDATA_REQUESTS_PER_MINUTE": ("600", 600),
    "FASTNEAR_API_URL": ("https://height.example/status", "https://height.example/status"),
    "START_BLOCK_HEIGHT": ("123456789", 123456789),
    "SCAN_INTERVAL_SECONDS": ("0.25", 0.25),
    "EVENT_STANDARD": ("near-outlayer", "near-outlayer"),
    "DOCKER_IMAGE": ("rust:1.90", "rust:1.90"),
    "BUILDER_IMAGE": ("builder:2", "builder:2"),
    "DOCKER_RUNTIME": ("runsc", "runsc"),
    "COMPILE_TIMEOUT_SECONDS": ("3600", 3600),
    "COMPILE_MEMORY_LIMIT_MB": ("512", 512),
    "COMPILE_CPU_LIMIT": ("0.5", 0.5),
    "BUILD_DISK_MB": ("64", 64),
    "SOURCE_MIRROR_URL": ("file:///srv/mirror", "file:///srv/mirror"),
    "CRATES_MIRROR_URL": ("sparse+https://crates.example/index/", "sparse+https://crates.example/index/"),
    "CRATE_CACHE_MAX_MB": ("0", 0),
    "BUILD_NETWORK": ("filtered", "filtered"),
    "REQUIRE_LOCKFILE": ("1", True),
    "VERIFY_BUILDS": ("require", "require"),
    "DEFAULT_MAX_INSTRUCTIONS": ("7", 7),
    "DEFAULT_MAX_MEMORY_MB": ("16", 16),
    "DEFAULT_MAX_EXECUTION_SECONDS": ("5", 5),
    "MAX_INSTRUCTIONS": ("20000000000", 20_000_000_000),
    "MAX_MEMORY_MB": ("256", 256),
    "MAX_EXECUTION_SECONDS": ("60", 60),
    "WEB_HOST": ("::1", "::1"),
    "WEB_PORT": ("80", 80),
    "WEB_TOKEN": ("a token of the page", "a token of the page"),
    "WASM_RUNTIME": ("wasmer", "wasmer"),
    "WASMER_PYTHON": ("/opt/py310/bin/python", Path("/opt/py310/bin/python")),
    "WASM_COMPONENTS": ("false", False),
    "METERING": ("native", "native"),
    "WASM_CACHE_MAX_MB": ("16", 16),
    "RESOLVES_PER_TRANSACTION": ("1", 1),
    "KEY_WINDOW": ("1", 1),
    "RESOLVE_GAS_TGAS": ("300", 300),
}

BAD_VALUES = [
    ("API_BASE_URL", "localhost:8080"),
    ("NEAR_RPC_URL", "https://ok.example,ftp://no.example"),
    ("OFFCHAINVM_CONTRACT_ID", "No Account"),
    ("OPERATOR_ACCOUNT_ID", "UPPER.near"),
    ("WORKER_ID", "two words"),
    ("REDIS_URL", "localhost"),
    ("LOG_LEVEL", "loud"),
    ("LOG_FORMAT", "xml"),
    ("METRICS_PORT", "70000"),
    ("TASK_EVENTS", "maybe"),
    ("JOB_RETENTION_HOURS", "0"),
    ("CA_BUNDLE", "/no/such.pem"),
    ("CA_BUNDLE", __file__),
    ("POLL_TIMEOUT_SECONDS", "0"),
    ("POLL_TIMEOUT_SECONDS", "301"),
    ("POLL_CONCURRENCY", "0"),
    ("QUEUE_HIGH_WATER", "0"),
    ("ALLOW_REPOSITORIES", "https://github.com/a/b"),
    ("ALLOW_SENDERS", "Alice.near"),
    ("DENY_SENDERS", "al*.near"),
    ("DENY_REPOSITORIES", "a-name-alone"),
    ("NEARDATA_REQUESTS_PER_MINUTE", "0"),
    ("START_BLOCK_HEIGHT", "-1"),
    ("SCAN_INTERVAL_SECONDS", "0"),
    ("SCAN_INTERVAL_SECONDS", "nan"),
    ("COMPILE_TIMEOUT_SECONDS", "0"),
    ("COMPILE_TIMEOUT_SECONDS", "3601"),
    ("COMPILE_MEMORY_LIMIT_MB", "511"),
    ("COMPILE_CPU_LIMIT", "0"),
    ("COMPILE_CPU_LIMIT", "inf"),
    ("BUILD_DISK_MB", "63"),
    ("SOURCE_MIRROR_URL", "ssh://mirror.example"),
    ("CRATES_MIRROR_URL", 'https://crates.example/"\n[build]'),
    ("BUILD_NETWORK", "--privileged"),
    ("BUILD_NETWORK", "host"),
    ("BUILD_NETWORK", "none"),
    ("BUILD_NETWORK", "container:offchainvm-redis"),
    ("VERIFY_BUILDS", "sometimes"),
    ("DEFAULT_MAX_INSTRUCTIONS", "many"),
    ("DEFAULT_MAX_MEMORY_MB", "0"),
    ("DEFAULT_MAX_EXECUTION_SECONDS", "0"),
    ("MAX_EXECUTION_SECONDS", "3601"),
    ("WASM_RUNTIME", "wasm3"),
    ("METERING", "none"),
    ("WASM_CACHE_MAX_MB", "15"),
    ("RESOLVES_PER_TRANSACTION", "101"),
    ("KEY_WINDOW", "0"),
    ("RESOLVE_GAS_TGAS", "4"),
]


def plain(value: object) -> object:
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_each_setting_takes_a_value_from_the_environment(name: str, complete: dict[str, str]) -> None:
    text, expected = OTHER_VALUES[name]
    settings = load(Role, environ={**complete, name: text})
    assert plain(getattr(settings, name.lower())) == expected


def test_no_setting_is_left_out_of_these_tests() -> None:
    assert set(OTHER_VALUES) | {"OPERATOR_PRIVATE_KEY", "OPERATOR_PRIVATE_KEYS"} == {row.name for row in setting_table()}


@pytest.mark.parametrize(("name", "text"), BAD_VALUES)
def test_a_bad_value_is_named_with_its_remedy(name: str, text: str, complete: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(Role, environ={**complete, name: text})
    help = {row.name: row.help for row in setting_table()}[name]
    assert [line for line in caught.value.problems if line.startswith(f"{name}: ") and line.endswith(help)] == caught.value.problems
    assert len(caught.value.problems) == 1


def test_all_problems_are_told_at_once() -> None:
    environ = {"POLL_TIMEOUT_SECONDS": "0", "LOG_LEVEL": "loud", "API_AUTH_TOKEN": "your_secret_token_here"}
    with pytest.raises(SettingsError) as caught:
        load([Role.BRIDGE], environ=environ)
    named = {line.split(":")[0] for line in caught.value.problems}
    assert named == {
        "API_BASE_URL",
        "API_AUTH_TOKEN",
        "NEAR_RPC_URL",
        "OFFCHAINVM_CONTRACT_ID",
        "OPERATOR_ACCOUNT_ID",
        "POLL_TIMEOUT_SECONDS",
        "LOG_LEVEL",
    }
    assert str(caught.value).count("\n  - ") == 7


@pytest.mark.parametrize("role", Role)
def test_a_role_asks_only_for_what_it_needs(role: Role, complete: dict[str, str]) -> None:
    needed = {name for name, roles in REQUIRED.items() if role in roles}
    load([role], environ={name: complete[name] for name in needed})
    for name in needed:
        with pytest.raises(SettingsError, match=f"{name}: is missing"):
            load([role], environ={key: value for key, value in complete.items() if key != name})


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.RESOLVE])
def test_the_operators_key_stays_out_of_processes_that_do_not_sign(role: Role, complete: dict[str, str], operator_key: str) -> None:
    settings = load([role], environ={**complete, "OPERATOR_PRIVATE_KEYS": operator_key})
    assert settings.operator_keys == ()


def test_the_resolve_worker_reads_no_api_token(complete: dict[str, str]) -> None:
    assert load([Role.RESOLVE], environ=complete).api_auth_token.get_secret_value() == ""


def test_keys_are_each_told_once_the_single_one_first(complete: dict[str, str], operator_key: str) -> None:
    second = operator_key[:-4] + "2345"
    settings = load([Role.RESOLVE], environ={**complete, "OPERATOR_PRIVATE_KEYS": f"{second}, {operator_key},"})
    assert [key.get_secret_value() for key in settings.operator_keys] == [operator_key, second]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("API_AUTH_TOKEN", "your_secret_token_here"),
        ("OPERATOR_PRIVATE_KEY", "ed25519:YOUR_PRIVATE_KEY_HERE"),
        ("OPERATOR_PRIVATE_KEY", "ed25519:..."),
        ("API_AUTH_TOKEN", "<your token>"),
        ("API_AUTH_TOKEN", "changeme"),
    ],
)
def test_a_placeholder_is_recognised(name: str, text: str, complete: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=f"{name}: still holds the placeholder"):
        load(Role, environ={**complete, name: text})


@pytest.mark.parametrize("text", ["secp256k1:abc", "ed25519:abc", "nonsense", "ed25519:0OIl" + "1" * 80])
@pytest.mark.parametrize("name", ["OPERATOR_PRIVATE_KEY", "OPERATOR_PRIVATE_KEYS"])
def test_what_is_no_key_is_refused_without_showing_it(name: str, text: str, complete: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=f"{name}: is no NEAR key") as caught:
        load(Role, environ={**complete, name: text})
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("DEFAULT_MAX_INSTRUCTIONS", "MAX_INSTRUCTIONS"),
        ("DEFAULT_MAX_MEMORY_MB", "MAX_MEMORY_MB"),
        ("DEFAULT_MAX_EXECUTION_SECONDS", "MAX_EXECUTION_SECONDS"),
    ],
)
def test_a_default_above_the_clamp_is_refused(name: str, most: str, complete: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=f"{name}: 33 is above {most} \\(32\\)"):
        load([Role.EXECUTE, Role.BRIDGE], environ={**complete, name: "33", most: "32"})


def test_a_clamp_is_compared_only_with_a_default_that_the_role_reads(complete: dict[str, str]) -> None:
    assert load([Role.COMPILE], environ={**complete, "MAX_EXECUTION_SECONDS": "30"}).max_execution_seconds == 30


def test_every_secret_can_come_from_a_file(tmp_path: Path, complete: dict[str, str], operator_key: str) -> None:
    secrets = {row.name for row in setting_table() if row.secret}
    assert {"API_AUTH_TOKEN", "OPERATOR_PRIVATE_KEY", "OPERATOR_PRIVATE_KEYS", "NEARDATA_API_KEY", "REDIS_URL", "BROKER_URL"} <= secrets
    given = {**complete, "OPERATOR_PRIVATE_KEYS": operator_key, "NEARDATA_API_KEY": "k3y"}
    given |= {"SOURCE_MIRROR_URL": "https://u:p@git.example", "CRATES_MIRROR_URL": "https://u:p@crates.example"}
    given |= {"WEB_TOKEN": "a token of the page", "REDIS_URL": "redis://:p@redis.example", "BROKER_URL": "redis://:p@broker.example"}
    environ = {name: value for name, value in given.items() if name not in secrets}
    for name in secrets:
        (tmp_path / name).write_text(given[name] + "\n")
        environ[f"{name}_FILE"] = str(tmp_path / name)
    assert load(Role, environ=environ) == load(Role, environ=given)


def test_a_secret_file_that_cannot_be_read_is_one_problem(tmp_path: Path, complete: dict[str, str]) -> None:
    del complete["API_AUTH_TOKEN"]
    with pytest.raises(SettingsError) as caught:
        load([Role.EXECUTE], environ={**complete, "API_AUTH_TOKEN_FILE": str(tmp_path / "absent")})
    assert caught.value.problems == ["API_AUTH_TOKEN_FILE: cannot be read (No such file or directory). Name a readable file."]


def test_a_secret_file_of_bytes_is_one_problem_that_shows_none(tmp_path: Path, complete: dict[str, str]) -> None:
    del complete["API_AUTH_TOKEN"]
    (tmp_path / "token").write_bytes(b"abc\xff\xfe")
    with pytest.raises(SettingsError) as caught:
        load([Role.EXECUTE], environ={**complete, "API_AUTH_TOKEN_FILE": str(tmp_path / "token")})
    assert caught.value.problems == ["API_AUTH_TOKEN_FILE: is not text. Name a file that holds the value and nothing else."]


def test_the_environment_is_stronger_than_the_file_even_by_a_secret_file(tmp_path: Path, complete: dict[str, str]) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("API_AUTH_TOKEN=old\nWORKER_ID=from-file\nPOLL_CONCURRENCY=2\n")
    (tmp_path / "token").write_text("new")
    del complete["API_AUTH_TOKEN"]
    environ = {**complete, "API_AUTH_TOKEN_FILE": str(tmp_path / "token"), "WORKER_ID": "from-environment"}
    settings = load([Role.BRIDGE], environ=environ, env_file=env_file)
    assert (settings.api_auth_token.get_secret_value(), settings.worker_id, settings.poll_concurrency) == ("new", "from-environment", 2)


def test_a_dollar_in_the_file_stays_a_dollar(tmp_path: Path, complete: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    (tmp_path / ".env").write_text("API_AUTH_TOKEN=a${HOME}b\n")
    del complete["API_AUTH_TOKEN"]
    settings = load([Role.BRIDGE], environ=complete, env_file=tmp_path / ".env")
    assert settings.api_auth_token.get_secret_value() == "a${HOME}b"


def test_a_comment_behind_a_value_is_no_part_of_it(complete: dict[str, str]) -> None:
    environ = {**complete, "WORKER_ID": "worker-1                    # default: random UUID", "BROKER_URL": "# none", "LOG_LEVEL": "info"}
    settings = load(Role, environ=environ)
    assert (settings.worker_id, settings.broker_url) == ("worker-1", "")


def test_the_dotenv_of_the_working_folder_is_read_unless_another_is_named(
    tmp_path: Path, complete: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in os.environ:
        monkeypatch.delenv(name)
    for name, value in complete.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("WORKER_ID=dotted\n")
    Path("other.env").write_text("WORKER_ID=other\n")
    assert load(Role).worker_id == "dotted"
    monkeypatch.setenv("OFFCHAINVM_ENV_FILE", "other.env")
    assert load(Role).worker_id == "other"
    monkeypatch.setenv("OFFCHAINVM_ENV_FILE", "")
    assert load(Role).worker_id == ""


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, and an environment with nothing of ours in it."""
    for name in os.environ:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("own_folder")
def test_a_dotenv_that_is_not_utf8_is_named() -> None:
    Path(".env").write_bytes("API_AUTH_TOKEN=s3cret-tök".encode("latin-1"))
    with pytest.raises(SettingsError) as caught:
        load([Role.DASHBOARD])
    assert caught.value.problems == [".env: is not UTF-8 text. Save it as UTF-8."]


def test_a_named_file_that_is_missing_or_a_folder_is_told(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, why in (("absent.env", "No such file or directory"), (str(own_folder), "Is a directory")):
        monkeypatch.setenv("OFFCHAINVM_ENV_FILE", name)
        with pytest.raises(SettingsError) as caught:
            load([Role.DASHBOARD])
        assert caught.value.problems == [f"OFFCHAINVM_ENV_FILE: {name}: {why}. Name a file of settings, or none (empty)."]


@pytest.mark.usefixtures("own_folder")
def test_a_dotenv_that_may_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").touch()

    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(SettingsError) as caught:
        load([Role.DASHBOARD])
    assert caught.value.problems == [".env: cannot be read (Permission denied). Let this user read it."]


@pytest.mark.usefixtures("own_folder")
def test_a_working_folder_that_may_not_be_entered_has_no_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Of a file in such a folder not even this can be asked.
    monkeypatch.setattr(os, "stat", refused)
    monkeypatch.setattr(Path, "read_text", refused)
    assert load([Role.DASHBOARD]).worker_id == ""


@pytest.mark.usefixtures("own_folder")
def test_a_virtual_environment_called_dotenv_is_no_file_of_settings() -> None:
    Path(".env").mkdir()
    assert load([Role.DASHBOARD]).worker_id == ""


def test_a_secret_file_wins_over_the_placeholder_of_the_example(tmp_path: Path, complete: dict[str, str]) -> None:
    (tmp_path / "token").write_text("from-the-file")
    files = {"API_AUTH_TOKEN": "your_secret_token_here", "API_AUTH_TOKEN_FILE": str(tmp_path / "token")}
    assert load([Role.COMPILE], environ={**complete, **files}).api_auth_token.get_secret_value() == "from-the-file"


def test_a_home_in_a_path_is_expanded_in_the_default_too(complete: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = load(Role, environ={**complete, "WASMER_PYTHON": "~/python"})
    assert settings.state_dir == Path("/home/somebody/.local/state/offchainvm")
    assert settings.wasmer_python == Path("/home/somebody/python")


def test_what_a_caller_gives_overrules_everything(complete: dict[str, str]) -> None:
    assert load([Role.COMPILE], environ={**complete, "BUILDER_IMAGE": "one"}, builder_image="two").builder_image == "two"


def test_a_name_that_does_not_exist_is_refused_when_given_by_a_caller(complete: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="NO_SUCH_THING"):
        load([Role.COMPILE], environ=complete, no_such_thing=1)


def test_a_random_worker_name_stays_the_same_in_a_process(complete: dict[str, str]) -> None:
    one, two = load(Role, environ=complete), load(Role, environ=complete)
    assert one.node_name == two.node_name
    assert len(one.node_name) == 36


def test_limit_defaults_are_those_of_the_users_document(complete: dict[str, str]) -> None:
    defaults = load(Role, environ=complete).limit_defaults
    assert (defaults.max_instructions, defaults.max_memory_mb, defaults.max_execution_seconds) == (10_000_000_000, 128, 60)


def test_the_broker_is_redis_unless_named(complete: dict[str, str]) -> None:
    assert load(Role, environ=complete).effective_broker_url == "redis://127.0.0.1:6379/0"
    assert load(Role, environ={**complete, "BROKER_URL": "amqp://x"}).effective_broker_url == "amqp://x"


def test_no_secret_in_any_text_of_the_settings(complete: dict[str, str], operator_key: str) -> None:
    secrets = {"API_AUTH_TOKEN": "s3cret-token", "NEARDATA_API_KEY": "s3cret-api-key", "OPERATOR_PRIVATE_KEYS": operator_key}
    secrets |= {"REDIS_URL": "redis://:s3cret-a@h", "BROKER_URL": "amqp://u:s3cret-b@h", "NEAR_RPC_URL": "https://h/?apiKey=s3cret-c"}
    secrets |= {"SOURCE_MIRROR_URL": "https://u:s3cret-d@h"}
    settings = load(Role, environ={**complete, **secrets})
    for text in (repr(settings), str(settings), f"{settings}", repr(settings.operator_keys), repr(settings.api_auth_token)):
        assert "s3cret" not in text
        assert operator_key not in text


def test_no_secret_in_the_errors(complete: dict[str, str], operator_key: str) -> None:
    environ = {
        **complete,
        "API_AUTH_TOKEN": "s3cret-1",
        "REDIS_URL": ":s3cret-2@h",
        "SOURCE_MIRROR_URL": "s3cret-3",
        "NEAR_RPC_URL": "s3cret-4",
    }
    with pytest.raises(SettingsError) as caught:
        load(Role, environ={**environ, "POLL_TIMEOUT_SECONDS": "0", "OPERATOR_PRIVATE_KEYS": operator_key + " x"})
    for text in (str(caught.value), repr(caught.value), *caught.value.problems, repr(caught.value.__cause__)):
        assert "s3cret" not in text
        assert operator_key not in text
    assert len(caught.value.problems) == 5


def test_a_tool_that_serves_no_role_reads_the_names_it_asks_for(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BUILDER_IMAGE=mine # not theirs\nSTATE_DIR=/srv/$state\nLOG_LEVEL=loud\n")
    settings = load_only(["builder_image", "state_dir", "api_auth_token"], environ={}, env_file=tmp_path / ".env")
    assert (settings.builder_image, settings.state_dir, settings.log_level) == ("mine", Path("/srv/$state"), "info")


def test_a_tool_that_serves_no_role_is_told_of_a_bad_value() -> None:
    with pytest.raises(SettingsError, match="OPERATOR_ACCOUNT_ID: must be a NEAR account id"):
        load_only(["operator_account_id"], environ={"OPERATOR_ACCOUNT_ID": "No Account"})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().worker_id = "other"  # type: ignore[misc]
