//! Sending and receiving on a lane, and the start and end of a client, on any carrier: the same methods for each type
//! that sends and receives bodies, and for each that has such a control lane.

/// The methods of a lane that has `body` and `try_hear_body`.
macro_rules! speaks {
    ($lane:ty) => {
        impl $lane {
            /// Sends one JSON message.
            pub async fn say(&mut self, message: serde_json::Value) {
                self.body(message.to_string().as_bytes()).await;
            }

            /// Sends a message with an attachment.
            pub async fn say_with(&mut self, message: serde_json::Value, attachment: &[u8]) {
                self.body(&$crate::common::with_attachment(&message, attachment)).await;
            }

            /// The next body.
            pub async fn hear_body(&mut self) -> Vec<u8> {
                self.try_hear_body().await.expect("a message")
            }

            /// The next message, which must be JSON alone.
            pub async fn hear(&mut self) -> serde_json::Value {
                serde_json::from_slice(&self.hear_body().await).expect("JSON")
            }

            /// The next message and its attachment.
            pub async fn hear_with(&mut self) -> (serde_json::Value, Vec<u8>) {
                let body = self.hear_body().await;
                assert_eq!(body[0], 0x01, "the body has an attachment");
                let json_len = u32::from_be_bytes(body[1..5].try_into().expect("four bytes")) as usize;
                (serde_json::from_slice(&body[5..5 + json_len]).expect("JSON"), body[5 + json_len..].to_vec())
            }

            /// The next message, which must be of this type.
            pub async fn expect(&mut self, kind: &str) -> serde_json::Value {
                let message = self.hear().await;
                assert_eq!(message["type"], kind, "expected {kind}, got {message}");
                message
            }

            /// Checks that the server still answers on this lane.
            pub async fn lives(&mut self, client: &str) {
                self.say(serde_json::json!({"type": "ping", "id": client})).await;
                assert_eq!(self.expect("pong").await["re"], client);
            }

            /// The next message, which must be an error with this code; returns its text.
            pub async fn expect_error(&mut self, code: u16) -> String {
                let message = self.expect("error").await;
                assert_eq!(message["code"], code, "expected error {code}, got {message}");
                message["message"].as_str().expect("an error has a message").to_owned()
            }
        }
    };
}

/// The methods of a client that has a control lane, an id, and `closed`.
macro_rules! shakes_hands {
    ($client:ty) => {
        impl $client {
            /// Completes the handshake with a name.
            pub async fn handshake(&mut self, name: &str) -> serde_json::Value {
                self.handshake_with(serde_json::json!({
                    "type": "handshake", "protocol_version": "1.0", "client_name": name,
                }))
                .await
            }

            /// Completes the handshake with a message of the test.
            pub async fn handshake_with(&mut self, message: serde_json::Value) -> serde_json::Value {
                self.control.say(message).await;
                let response = self.control.expect("handshake_response").await;
                assert_eq!(response["accepted"], true, "expected to be let in, got {response}");
                self.id = response["client_id"].as_str().expect("an accepted client has an id").to_owned();
                response
            }

            /// Waits for the server's `close` message and its close, which must agree; returns the message.
            pub async fn expect_close(&mut self, code: u16) -> serde_json::Value {
                let message = self.control.expect("close").await;
                assert_eq!(message["code"], code, "expected close {code}, got {message}");
                assert_eq!(self.closed().await.0, u64::from(code), "the connection closes with the message's code");
                message
            }
        }
    };
}
