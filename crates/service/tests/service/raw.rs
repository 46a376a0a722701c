//! What other programs than the client may send: every refusal is JSON with a code.

use isotherm_api::Code;
use isotherm_api::error::ErrorBody;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::World;

/// Sends a request as it is; gives status and error.
async fn send(world: &World, request: &str) -> (u16, ErrorBody) {
    let address = world.client().url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = request.replace("ADDRESS", address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(head.to_ascii_lowercase().contains("content-type: application/json"), "{head}");
    (status, serde_json::from_str(body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_json_with_a_code() {
    let world = World::new().await;
    let local = "Host: ADDRESS\r\nConnection: close\r\n";
    let sync = format!("isotherm-protocol: {}\r\n", isotherm_api::PROTOCOL);
    let rows = [
        (format!("GET /nothing HTTP/1.1\r\n{local}\r\n"), 404, Code::NoRoute, "/nothing"),
        (format!("DELETE /v1/status HTTP/1.1\r\n{local}\r\n"), 404, Code::NoRoute, "DELETE"),
        (format!("GET /v1/groups/none HTTP/1.1\r\n{local}\r\n"), 404, Code::NotFound, "Group none"),
        (format!("POST /v1/attach HTTP/1.1\r\n{local}Content-Length: 0\r\n\r\n"), 426, Code::Protocol, "no version"),
        (format!("POST /v1/attach HTTP/1.1\r\n{local}{sync}Content-Length: 3\r\n\r\n\u{1}ab"), 400, Code::Decode, "Attach"),
        (format!("POST /v1/attach HTTP/1.1\r\n{local}{sync}Content-Length: 1\r\n\r\n\u{9}"), 400, Code::Decode, "format 9"),
        (format!("POST /v1/attach HTTP/1.1\r\n{local}{sync}Content-Length: 99999999\r\n\r\n"), 413, Code::TooLarge, "bytes"),
        (format!("POST /v1/groups HTTP/1.1\r\n{local}Content-Length: 2\r\n\r\n{{}}"), 400, Code::Decode, "NewGroup"),
        (format!("GET /v1/audit?limit=x HTTP/1.1\r\n{local}\r\n"), 400, Code::Invalid, "limit"),
        (format!("GET /v1/endpoints/zz HTTP/1.1\r\n{local}\r\n"), 400, Code::Invalid, "zz"),
        (format!("GET /v1/groups/plans/files/%zz HTTP/1.1\r\n{local}\r\n"), 400, Code::Invalid, "%zz"),
        ("GET /v1/status HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n".into(), 403, Code::Denied, "example.org"),
        (format!("GET /v1/status HTTP/1.1\r\n{local}Origin: http://example.org\r\n\r\n"), 403, Code::Denied, "origin"),
    ];
    for (request, status, code, word) in rows {
        let (found, error) = send(&world, &request).await;
        assert_eq!((found, error.code), (status, code), "{request}");
        assert!(error.message.contains(word), "{request}: {}", error.message);
    }
    world.stop().await;
}
