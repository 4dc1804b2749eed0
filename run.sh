#!/usr/bin/env bash
# The project's commands. Works from any folder; paths in arguments are relative to the current folder.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'HELP'
Usage: ./run.sh COMMAND [ARGUMENTS...]

  native     start the server on QUIC, with a log line for each message (development certificates in certs/)
  web        the same, with the web pages on http://127.0.0.1:8080: / is a chat, /dashboard shows the metrics
  hello      run the smallest client, examples/hello.rs, against 127.0.0.1:4433; hello HOST:PORT for another server
  test       run the test client against 127.0.0.1:4433
  chat       run the chat client against 127.0.0.1:4433
  pubsub     topics in pipes: pubsub sub TOPIC, pubsub pub TOPIC, pubsub history TOPIC
  rpc        requests between clients: rpc serve TOPIC, rpc ask TOPIC JSON
  telemetry  sensors that send their state as datagrams, and a monitor that shows the newest values
  bench      measure a server that it starts itself; with --server HOST:PORT, one that is already running
  durability test that durable topics lose nothing: durability kill|power|full|inject|rot [COUNT] causes failures of
             the server's process, the power, the disk and its files (docs/DURABILITY.md); needs Python 3
  token      create tokens (token mint), or inspect one (token explain)
  certs      create development certificates in certs/ (--force to replace them)
  check      formatting, lints, documentation, all tests, dependencies, scripts, web pages; checks whose tools are not
             installed are left out (check --quick: what a change needs before a commit)
  clean      remove the build and the development certificates in certs/
  help       show this help

Arguments are passed on: './run.sh native --help' shows those of the server, './run.sh test --help' those of the client.

All commands but bench and durability build the quick profile, which takes minutes and is for trying things out. For
production, 'cargo build --release' builds target/release/quic-websocket; bench and durability use that one, and
'PROFILE=release ./run.sh native' runs it here.
HELP
}

require_cargo() {
    if ! command -v cargo >/dev/null; then
        {
            echo "cargo was not found. Install Rust 1.89 or later (https://rustup.rs), and open a new terminal."
            echo "If Rust is installed already, add its folder to the PATH: . \"\$HOME/.cargo/env\""
        } >&2
        exit 1
    fi
}

# Cargo's target directory.
target_directory() {
    cargo metadata --manifest-path "$root/Cargo.toml" --format-version 1 --no-deps |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}

# Builds with the given flags; shows cargo's progress on a terminal.
build() {
    local flags=(--manifest-path "$root/Cargo.toml")
    [[ -t 2 ]] || flags+=(--quiet)
    cargo build "${flags[@]}" "$@"
}

profile=${PROFILE:-quick}

# Builds only the given programs, and sets `bin` to their folder.
build_for() {
    local program flags=() minutes missing=no
    require_cargo
    bin=$(target_directory)
    case $profile in
        quick)
            bin+=/debug
            minutes=4
            # The system's allocator: jemalloc takes a minute to build and pays off with many clients.
            flags+=(--no-default-features)
            ;;
        release)
            bin+=/release
            minutes=10
            flags+=(--release)
            ;;
        *)
            echo "run.sh: PROFILE is '$profile'; expected quick or release" >&2
            exit 2
            ;;
    esac
    for program in "$@"; do
        [[ -x $bin/$program ]] || missing=yes
        case $program in
            examples/*) flags+=(--example "${program#examples/}") ;;
            *) flags+=(--bin "$program") ;;
        esac
    done
    if [[ $missing == yes ]]; then
        echo "Building the $profile profile (the first time about $minutes minutes on two cores)..." >&2
    fi
    build "${flags[@]}"
}

# Builds a program and replaces this process with it, so that it gets the signals.
run() {
    local program=$1
    shift
    build_for "$program"
    # In another folder, the development certificates are still those of this one.
    [[ $PWD == "$root" ]] || export QUIC_WEBSOCKET_CERTS=${QUIC_WEBSOCKET_CERTS:-$root/certs}
    exec "$bin/$program" "$@"
}

stop_measured() {
    kill "$measured_server" 2>/dev/null || true
    wait "$measured_server" || true
    rm -rf -- "$measured_folder"
}

# The benchmark against a server of its own, in the release profile, on a free port.
bench() {
    local argument address='' waited
    profile=release
    for argument in "$@"; do
        case $argument in
            --server | --server=* | --compare | --curves | --fairness | --help | -h) run examples/benchmark "$@" ;;
        esac
    done
    build_for quic-websocket examples/benchmark
    # Not local: the trap runs after the function has returned.
    measured_folder=$(mktemp -d)
    export QUIC_WEBSOCKET_CERTS=$measured_folder/certs
    "$bin/quic-websocket" --addr 127.0.0.1:0 >"$measured_folder/log" 2>&1 &
    measured_server=$!
    trap stop_measured EXIT
    for ((waited = 0; waited < 300; waited++)); do
        address=$(sed -n 's/.*Listening on: //p' "$measured_folder/log")
        [[ -z $address ]] || break
        kill -0 "$measured_server" 2>/dev/null || break
        sleep 0.1
    done
    if [[ -z $address ]]; then
        echo "run.sh: the server did not start:" >&2
        cat "$measured_folder/log" >&2
        exit 1
    fi
    (($# > 0)) || set -- --clients 10 --messages 100 --message-size 1024
    "$bin/examples/benchmark" --server "$address" "$@"
}

# The durability suites against the release build.
durability() {
    if ! command -v python3 >/dev/null; then
        echo "python3 was not found; the durability suites are written in Python." >&2
        exit 1
    fi
    profile=release
    build_for quic-websocket examples/durability_load
    exec python3 "$root/tests/durability/suites.py" --server "$bin/quic-websocket" \
        --load "$bin/examples/durability_load" "$@"
}

SECONDS=0
steps=0
step() {
    steps=$((steps + 1))
    printf '==> %d. %s (after %d:%02d)\n' "$steps" "$*" $((SECONDS / 60)) $((SECONDS % 60))
    "$@"
}

left_out=no
leave_out() {
    echo "==> $1" >&2
    left_out=yes
}

# Checks the JavaScript client and the web pages against the server that the tests above have built.
check_web() {
    local chromium firefox target
    if ! command -v npm >/dev/null; then
        leave_out "Node.js with npm is not installed: the JavaScript client and the web pages were not checked"
        return
    fi
    target=$(target_directory)
    export QWS_SERVER=$target/debug/quic-websocket QWS_CHAT=$target/debug/examples/chat_client
    step npm --prefix web ci --no-audit --no-fund
    step npm --prefix web run check
    step npm --prefix web test
    if [[ $1 == quick ]]; then
        return
    fi
    chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
    if [[ -z $chromium ]]; then
        leave_out "Chromium is not installed: the web pages were not checked"
        return
    fi
    export QWS_CHROMIUM=$chromium
    step npm --prefix tests/web ci --no-audit --no-fund
    step npm --prefix tests/web test
    firefox=$(command -v firefox-esr || command -v firefox || true)
    if [[ -z $firefox ]]; then
        leave_out "Firefox is not installed: the JavaScript client was not checked in it"
        return
    fi
    export QWS_FIREFOX=$firefox
    step npm --prefix tests/web run test:firefox
}

# Kills the server a few times; ./run.sh durability has the long forms.
check_durability() {
    if ! command -v python3 >/dev/null; then
        leave_out "python3 is not installed: durable topics were not checked from outside"
        return
    fi
    command -v strace >/dev/null || leave_out "strace is not installed: the simulated loss of power was not checked"
    step cargo test --test durability -- --test-threads 1
}

# Checks the dependencies' licences, versions, sources and known vulnerabilities by the rules in deny.toml.
check_dependencies() {
    local databases=${CARGO_HOME:-$HOME/.cargo}/advisory-dbs
    if ! command -v cargo-deny >/dev/null; then
        leave_out "cargo-deny is not installed: the dependencies were not checked"
        return
    fi
    step cargo deny check licenses bans sources
    if cargo deny fetch db >/dev/null 2>&1; then
        step cargo deny check advisories
    # cargo-deny refuses a database that is older than 90 days.
    elif [[ -n $(find "$databases" -path '*/.git/FETCH_HEAD' -mtime -90 2>/dev/null) ]]; then
        leave_out "the advisory database could not be updated: newer vulnerabilities were not checked"
        step cargo deny --offline check advisories
    else
        leave_out "the advisory database could not be fetched: known vulnerabilities were not checked"
    fi
}

check() {
    local extent=all
    case ${1-} in
        --quick) extent=quick ;;
        "") ;;
        *)
            echo "run.sh check: unknown option '$1'; expected --quick or nothing" >&2
            exit 2
            ;;
    esac
    require_cargo
    cd -- "$root"
    step cargo fmt --all --check
    step cargo clippy --workspace --all-targets -- -D warnings
    # The tests of the examples and of the web pages run these programs.
    step cargo build --bin quic-websocket --examples
    # These tests mostly wait, so twice as many as there are cores run at once.
    if [[ $extent == all ]]; then
        step env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
        step cargo test --workspace --lib --bins --test layers --test lines --test capabilities --test websocket -- \
            --test-threads "$((2 * $(nproc)))"
        step cargo test --test examples --test benchmark --test hostile --test memory
        check_durability
        step cargo test --workspace --doc
        check_dependencies
    else
        step cargo test --workspace --lib --bins --test layers --test lines --test capabilities -- \
            --test-threads "$((2 * $(nproc)))" \
            --skip churn:: --skip bad_link --skip many_clients:: --skip a_thousand --skip replies_on_the_control_lane
    fi
    check_web "$extent"
    if command -v shellcheck >/dev/null; then
        step shellcheck run.sh generate_certs.sh .ci/run tests/autobahn/run
    else
        leave_out "shellcheck is not installed: the scripts were not checked"
    fi
    printf '==> after %d:%02d: ' $((SECONDS / 60)) $((SECONDS % 60))
    case $extent in
        quick) echo "the quick checks passed; ./run.sh check runs the others" ;;
        *)
            if [[ $left_out == no ]]; then
                echo "all checks passed"
            else
                echo "all checks passed, except those that were left out (see above)"
            fi
            ;;
    esac
}

clean() {
    require_cargo
    cd -- "$root"
    step cargo clean
    step rm -f certs/{ca,server,server-key,client-ca,client,client-key}.pem certs/reset-key
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
    hello) run examples/hello "$@" ;;
    test) run examples/client "$@" ;;
    chat) run examples/chat_client "$@" ;;
    pubsub) run examples/pubsub "$@" ;;
    rpc) run examples/rpc "$@" ;;
    telemetry) run examples/telemetry "$@" ;;
    bench) bench "$@" ;;
    durability) durability "$@" ;;
    token) run quic-websocket token "$@" ;;
    certs) run quic-websocket certs "$@" ;;
    check) check "$@" ;;
    clean) clean ;;
    help | -h | --help) usage ;;
    "")
        usage >&2
        exit 2
        ;;
    *)
        echo "run.sh: unknown command '$command'" >&2
        usage >&2
        exit 2
        ;;
esac
