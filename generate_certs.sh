#!/usr/bin/env bash
# Creates development certificates in certs/: ca.pem for clients, server.pem and server-key.pem for the server.
#
#   ./generate_certs.sh                               for localhost
#   ./generate_certs.sh --force                       replaces existing certificates
#   ./generate_certs.sh --force --name chat.example --name 192.0.2.7
#                                                     also for other DNS names and addresses
#
# Not for production: use certificates of a certificate authority there.
exec "$(dirname -- "${BASH_SOURCE[0]}")/run.sh" certs "$@"
