#!/usr/bin/env bash
# Makes development certificates in certs/: ca.pem for clients, server.pem and server-key.pem for the server.
#
#   ./generate_certs.sh                               for localhost
#   ./generate_certs.sh --force                       replaces those that are there
#   ./generate_certs.sh --force --name chat.example --name 192.0.2.7
#                                                     for further DNS names and addresses
#
# Not for production: get certificates from a certificate authority there.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

if ! command -v cargo >/dev/null; then
    {
        echo "cargo was not found. Install Rust 1.89 or later (https://rustup.rs), open a new terminal, and run this again."
        echo "If Rust is installed already, add its folder to the PATH: . \"\$HOME/.cargo/env\""
    } >&2
    exit 1
fi

echo "Building (the first time takes a few minutes)..." >&2
cargo build --release --quiet --bin quic-websocket
exec cargo run --release --quiet --bin quic-websocket -- certs --dir certs "$@"
