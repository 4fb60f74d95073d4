//! A5: conditional requests, for manifests and for blobs.

use crate::harness::client::Request;
use crate::harness::content::{Image, sha256};
use crate::harness::upstream::Upstream;
use crate::harness::world::everywhere;

/// Checks every row for a manifest by tag, by digest, and a blob. `check` gets the target and the digest.
async fn each(check: impl AsyncFn(&crate::harness::mirror::Mirror, &str, &str)) {
    let image = Image::new(1);
    let prepare = |upstream: &Upstream| upstream.put_image("team/app", "v1", &image);
    let (manifest, blob) = (image.manifest.digest(), sha256(&image.blobs[1]));
    everywhere(prepare, async |mirror, way, _| {
        for (rest, digest) in [
            ("team/app/manifests/v1".to_owned(), &manifest),
            (format!("team/app/manifests/{manifest}"), &manifest),
            (format!("team/app/blobs/{blob}"), &blob),
        ] {
            let target = way.target(&rest);
            check(mirror, &target, digest).await;
            mirror.get(&target).await.expect(200);
        }
    })
    .await;
}

#[tokio::test]
async fn a5_what_the_client_has_is_not_sent_again() {
    each(async |mirror, target, digest| {
        let plain = mirror.head(target).await;
        let cache_control = plain.header("Cache-Control").map(str::to_owned);
        for condition in [
            format!("\"{digest}\""),
            digest.to_owned(),
            format!("W/\"{digest}\""),
            format!("\"other\", W/\"x,y\" ,\"{digest}\""),
            "*".to_owned(),
        ] {
            for method in ["GET", "HEAD"] {
                let request = Request::new(method, target).header("If-None-Match", &condition);
                let answer = mirror.send(request).await;
                assert_eq!(answer.status, 304, "{condition}: {answer:?}");
                assert_eq!(answer.header("ETag"), Some(&*format!("\"{digest}\"")));
                assert_eq!(answer.header("Docker-Content-Digest"), Some(digest));
                let told = answer.header("Cache-Control").map(str::to_owned);
                assert_eq!(told, cache_control);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a5_what_it_does_not_have_is_sent() {
    each(async |mirror, target, digest| {
        let other = format!("sha256:{}", "0".repeat(64));
        for condition in ["\"other\"", &format!("\"{other}\""), "", &digest[..20]] {
            let request = Request::get(target).header("If-None-Match", condition);
            mirror.send(request).await.expect(200);
        }
    })
    .await;
}

#[tokio::test]
async fn a5_several_lines_are_one_list() {
    each(async |mirror, target, digest| {
        let request = Request::get(target)
            .header("If-None-Match", "\"other\"")
            .header("If-None-Match", format!("\"{digest}\""));
        assert_eq!(mirror.send(request).await.status, 304);
    })
    .await;
}

#[tokio::test]
async fn a5_a_date_counts_for_nothing_beside_a_tag() {
    each(async |mirror, target, digest| {
        let (past, future) = (
            "Wed, 21 Oct 2015 07:28:00 GMT",
            "Wed, 21 Oct 2099 07:28:00 GMT",
        );
        let request = Request::get(target)
            .header("If-None-Match", "\"other\"")
            .header("If-Modified-Since", future);
        mirror.send(request).await.expect(200);
        let request = Request::get(target)
            .header("If-None-Match", format!("\"{digest}\""))
            .header("If-Modified-Since", past);
        assert_eq!(mirror.send(request).await.status, 304);
    })
    .await;
}

#[tokio::test]
async fn a5_a_client_that_insists_on_other_content_fails() {
    each(async |mirror, target, digest| {
        let request = Request::get(target).header("If-Match", "\"other\"");
        assert_eq!(mirror.send(request).await.status, 412);
        for condition in [&*format!("\"{digest}\""), "*"] {
            let request = Request::get(target).header("If-Match", condition);
            mirror.send(request).await.expect(200);
        }
    })
    .await;
}
