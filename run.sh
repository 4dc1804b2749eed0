#!/usr/bin/env bash
# The project's commands in one place. Works from any folder; paths in arguments are taken from this one.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

usage() {
    cat <<'HELP'
Usage: ./run.sh COMMAND [ARGUMENTS...]

  native   start the server on QUIC, with a log line for each message (development certificates in certs/)
  web      the same, with the web pages on http://127.0.0.1:8080 as well: / is a chat, /dashboard shows the numbers
  test     run the test client against 127.0.0.1:4433
  chat     run the chat client against 127.0.0.1:4433
  pubsub   topics in pipes: pubsub sub TOPIC, pubsub pub TOPIC, pubsub history TOPIC
  bench    run the benchmark; without arguments: --clients 10 --messages 100 --message-size 1024
  token    make tokens (token mint), or tell what one says (token explain)
  certs    make development certificates in certs/ (--force to replace them)
  check    formatting, lints, documentation, all tests, scripts; the web pages where Node.js and Chromium are there
  clean    remove what was built, and the development certificates in certs/
  help     show this

Arguments are passed on: './run.sh native --help' shows those of the server, './run.sh test --help' those of the client.
HELP
}

require_cargo() {
    if ! command -v cargo >/dev/null; then
        {
            echo "cargo was not found. Install Rust 1.89 or later (https://rustup.rs), open a new terminal, and run this again."
            echo "If Rust is installed already, add its folder to the PATH: . \"\$HOME/.cargo/env\""
        } >&2
        exit 1
    fi
}

# Where cargo puts what it builds.
target_directory() {
    cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}

# Builds all programs at once, so that the next command starts without a wait, and becomes the one that was asked for, so
# that signals reach it.
run() {
    require_cargo
    local program=$1 target
    shift
    echo "Building (the first time takes a few minutes)..." >&2
    cargo build --release --quiet --bin quic-websocket --examples
    target=$(target_directory)
    exec "$target/release/$program" "$@"
}

step() {
    echo "==> $*"
    "$@"
}

left_out=no
leave_out() {
    echo "==> $1" >&2
    left_out=yes
}

# The JavaScript client and the web pages, against the server that the tests above have built.
check_web() {
    local chromium target
    if ! command -v npm >/dev/null; then
        leave_out "Node.js with npm is not installed: the JavaScript client and the web pages were not checked"
        return
    fi
    target=$(target_directory)
    export QWS_SERVER=$target/debug/quic-websocket QWS_CHAT=$target/debug/examples/chat_client
    step npm --prefix web ci --no-audit --no-fund
    step npm --prefix web run check
    step npm --prefix web test
    chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
    if [[ -z $chromium ]]; then
        leave_out "Chromium is not installed: the web pages were not checked"
        return
    fi
    export QWS_CHROMIUM=$chromium
    step npm --prefix tests/web ci --no-audit --no-fund
    step npm --prefix tests/web test
}

check() {
    require_cargo
    step cargo fmt --check
    step cargo clippy --all-targets -- -D warnings
    step env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
    step cargo test
    check_web
    if command -v shellcheck >/dev/null; then
        step shellcheck run.sh generate_certs.sh .ci/run tests/autobahn/run
    else
        leave_out "shellcheck is not installed: the scripts were not checked"
    fi
    if [[ $left_out == yes ]]; then
        echo "==> all checks passed but those that were left out, see above"
    else
        echo "==> all checks passed"
    fi
}

clean() {
    require_cargo
    step cargo clean
    step rm -f certs/{ca,server,server-key,client-ca,client,client-key}.pem
}

command=${1-}
shift || true
case $command in
    native | web)
        if [[ $command == web && " $* " != *" --http"* ]]; then
            set -- --http 127.0.0.1:8080 "$@"
        fi
        if [[ " $* " != *" --log-messages"* ]]; then
            set -- --log-messages info "$@"
        fi
        run quic-websocket "$@"
        ;;
    test) run examples/client "$@" ;;
    chat) run examples/chat_client "$@" ;;
    pubsub) run examples/pubsub "$@" ;;
    bench)
        if (($# == 0)); then
            set -- --clients 10 --messages 100 --message-size 1024
        fi
        run examples/benchmark "$@"
        ;;
    token) run quic-websocket token "$@" ;;
    certs) run quic-websocket certs --dir certs "$@" ;;
    check) check ;;
    clean) clean ;;
    help | -h | --help) usage ;;
    "")
        usage >&2
        exit 2
        ;;
    *)
        echo "run.sh: there is no command '$command'" >&2
        usage >&2
        exit 2
        ;;
esac
