"""What code that runs in a build may not do, tried from each place where such code runs."""

from __future__ import annotations

import subprocess

import pytest
from builds import EXECUTE, LIBRARY, LOCKFILE, Build, Publish

from offchainvm.settings import load_only

# Each probe panics when it gets what a build must not have.
PROBE = r"""
use std::fs;
use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

fn probe() {
    // An address of nobody (RFC 5737): without any route the answer comes at once.
    let error = TcpStream::connect("192.0.2.1:443").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "has a route");
    assert!(UdpSocket::bind("0.0.0.0:0").and_then(|s| s.send_to(b"x", "192.0.2.1:53")).is_err(), "sent a datagram");
    assert!("localhost.localdomain:443".to_socket_addrs().is_err(), "resolved a name");
    let interfaces: Vec<_> = fs::read_dir("/sys/class/net").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(interfaces, ["lo"], "has an interface");
    for socket in ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"] {
        assert!(fs::metadata(socket).is_err(), "sees {socket}");
    }
    for path in ["/src/x", "/cargo/x", "/conf/x", "/usr/x", "/etc/x", "/x", "/dev/shm/x"] {
        assert!(fs::write(path, "x").is_err(), "wrote {path}");
    }
    assert!(fs::metadata("/out").is_err() && fs::metadata("/mirror").is_err(), "sees another phase's folders");
    let environ: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    for word in ["TOKEN", "SECRET", "PROXY", "proxy", "NEAR", "GIT_"] {
        assert!(!environ.iter().any(|name| name.contains(word)), "sees a variable with {word}");
    }
    let first = fs::read("/proc/1/environ").unwrap_or_default();
    assert!(!String::from_utf8_lossy(&first).to_lowercase().contains("proxy"), "sees a proxy");
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "Uid:\t10001"] {
        assert!(status.contains(line), "{line} does not hold");
    }
    let unshared = Command::new("unshare").args(["--user", "--map-root-user", "true"]).status();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "none", "/tmp"]).status();
    assert!(!mounted.map(|s| s.success()).unwrap_or(false), "mounted something");
    assert!(!unshared.map(|s| s.success()).unwrap_or(false), "made a user namespace");
    let program = fs::metadata("/usr/bin/su").unwrap();
    assert!(program.uid() == 0 && program.mode() & 0o4000 != 0, "su is no setuid program of root: nothing is tried");
    // It waits for a password on the pipe.
    let mut su = Command::new("/usr/bin/su").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", su.id())).unwrap();
    assert!(status.contains("Uid:\t10001\t10001\t10001\t10001"), "became another user");
    su.kill().unwrap();
    fs::copy("/bin/sh", "/tmp/sh").unwrap();
    assert!(Command::new("/tmp/sh").args(["-c", "true"]).status().is_err(), "ran a program from /tmp");
}
"""

MACRO = f"""
extern crate proc_macro;
{PROBE}
#[proc_macro]
pub fn probed(_: proc_macro::TokenStream) -> proc_macro::TokenStream {{ probe(); proc_macro::TokenStream::new() }}
"""
IN_A_BUILD_SCRIPT = {"build.rs": f"{PROBE}\nfn main() {{ probe() }}\n"}
IN_A_MACRO = {
    "Cargo.toml": f'{LIBRARY}[dependencies]\nmacros = {{ path = "macros" }}\n',
    "Cargo.lock": LOCKFILE + 'dependencies = [\n "macros",\n]\n\n[[package]]\nname = "macros"\nversion = "0.1.0"\n',
    "src/lib.rs": f"macros::probed!();\n{EXECUTE}",
    "macros/Cargo.toml": '[package]\nname = "macros"\nversion = "0.1.0"\nedition = "2021"\n[lib]\nproc-macro = true\n',
    "macros/src/lib.rs": MACRO,
}


@pytest.mark.parametrize("files", [pytest.param(IN_A_BUILD_SCRIPT, id="build-script"), pytest.param(IN_A_MACRO, id="macro")])
def test_a_build_has_no_network_no_rights_and_no_folders_but_its_own(build: Build, publish: Publish, files: dict[str, str]) -> None:
    assert build(publish(files)).size > 0


def test_the_setuid_program_that_was_tried_makes_root_where_it_may() -> None:
    """So that the probe above could fail: the same image without `no-new-privileges`."""
    script = "sleep 9 | su > /dev/null 2>&1 & until grep -l '^Name:.su$' /proc/[0-9]*/status; do :; done | head -n 1 | xargs grep Uid"
    image = load_only(["builder_image"]).builder_image
    command = ["docker", "run", "--rm", "--network=none", "--user=10001", image, "sh", "-c", script]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == ["Uid:", "10001", "0", "0", "0"]


def test_what_a_program_includes_at_compile_time_holds_nothing_of_the_host(
    build: Build, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_AUTH_TOKEN", "t0p-s3cret")
    library = f'{EXECUTE}#[no_mangle]\npub static SEEN: &[u8] = include_bytes!("/proc/self/environ");\n'

    wasm = build(publish({"src/lib.rs": library})).wasm

    assert b"CARGO_MANIFEST_DIR=/src" in wasm
    assert b"t0p-s3cret" not in wasm
    assert b"API_AUTH_TOKEN" not in wasm
