//! Secrets that name the session of a client: who has one is that client, or was it before its connection was lost. A
//! secret is derived from the client's id, so the server keeps none of them.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use aws_lc_rs::rand::SystemRandom;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// Bytes of a client's id.
const ID_BYTES: usize = 16;
/// Bytes of the tag: 128 bits cannot be guessed.
const TAG_BYTES: usize = 16;

/// Makes and checks the secrets of one start of the server.
#[derive(Debug)]
pub(crate) struct Sessions(Key);

impl Sessions {
    /// With a random key; `None` if the system has no random numbers.
    pub(crate) fn new() -> Option<Self> {
        Key::generate(HMAC_SHA256, &SystemRandom::new()).ok().map(Self)
    }

    /// The secret of a client's session.
    pub(crate) fn secret(&self, client: Uuid) -> String {
        let id = client.as_bytes();
        let mut secret = Vec::with_capacity(ID_BYTES + TAG_BYTES);
        secret.extend_from_slice(id);
        secret.extend_from_slice(&self.tag(id));
        BASE64.encode(secret)
    }

    /// The client whose secret this is; `None` if it is none of this start of the server.
    pub(crate) fn client(&self, secret: &str) -> Option<Uuid> {
        let secret = BASE64.decode(secret).ok().filter(|secret| secret.len() == ID_BYTES + TAG_BYTES)?;
        let (id, tag) = secret.split_at(ID_BYTES);
        let is_right = bool::from(self.tag(id).ct_eq(tag));
        is_right.then(|| Uuid::from_slice(id).ok()).flatten()
    }

    fn tag(&self, id: &[u8]) -> Vec<u8> {
        sign(&self.0, id).as_ref()[..TAG_BYTES].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_names_its_client_and_cannot_be_made_without_the_key() {
        let (sessions, others) = (Sessions::new().expect("random numbers"), Sessions::new().expect("random numbers"));
        let client = Uuid::new_v4();
        let secret = sessions.secret(client);
        assert!(secret.len() <= 128 && secret.bytes().all(|byte| byte.is_ascii_graphic()), "{secret}");
        assert_eq!(sessions.client(&secret), Some(client));
        assert_eq!(others.client(&secret), None, "another start of the server");
        let mut bytes = BASE64.decode(&secret).expect("base64");
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_eq!(sessions.client(&BASE64.encode(&bytes)), None, "changed at {at}");
            bytes[at] ^= 1;
        }
        for wrong in ["", "x", &secret[1..], &format!("{secret}AA"), "\u{e9}"] {
            assert_eq!(sessions.client(wrong), None, "{wrong}");
        }
    }
}
