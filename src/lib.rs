//! The realtime messaging server for QUIC.
