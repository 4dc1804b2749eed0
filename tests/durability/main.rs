//! The short form of the durability suites: a few kills of the server's binary, judged from outside, and the tests of
//! the judge. `./run.sh durability` runs the long ones. Without Python 3 there is nothing to run.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::path::Path;
use std::process::Command;

/// Runs a script of this folder with Python, if it is installed.
fn python(script: &str, arguments: &[&str]) {
    let binary = Path::new(env!("CARGO_BIN_EXE_quic-websocket"));
    let load = binary.with_file_name("examples").join("durability_load");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/durability").join(script);
    let mut command = Command::new("python3");
    command.arg("-B").arg(path).args(arguments);
    if script == "suites.py" {
        command.arg("--server").arg(binary).arg("--load").arg(load);
    }
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("python3 is not installed: {script} was not run");
            return;
        }
        output => output.expect("python3 runs"),
    };
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{script} {arguments:?}:\n{}", String::from_utf8_lossy(&said));
}

#[test]
fn each_rule_of_the_checker_finds_what_breaks_it() {
    python("checker_test.py", &[]);
}

#[test]
fn a_simulated_loss_of_power_finds_the_faults_of_a_toy_log() {
    python("powercut_test.py", &[]);
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_the_server_is_killed() {
    python("suites.py", &["kill", "5"]);
}

#[test]
fn a_fault_is_found_when_the_server_is_killed() {
    python("suites.py", &["kill", "1", "--fault", "memory-only"]);
}
