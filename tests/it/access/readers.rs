//! What the mirror says at its start of who may read what.

use crate::harness::log::Log;
use crate::harness::mirror::Setup;
use crate::harness::upstream::Upstream;

#[tokio::test]
async fn who_may_read_what_is_said_at_start_in_a_line_for_each_registry() {
    let (log, _guard) = Log::start();
    let upstream = Upstream::start().await;
    let setup = Setup::new()
        .upstream_with("auto.example", &upstream, "")
        .upstream_with("shared.example", &upstream, "access: shared")
        .upstream_with("verify.example", &upstream, "access: verify")
        .upstream_with("known.example", &upstream, "access: authenticated")
        .upstream_with("part.example", &upstream, "access: auto");
    let htpasswd = setup.file(
        "htpasswd",
        "me:$2y$05$abcdefghijklmnopqrstuu5s8SPsRtAOBSPHmFRsT0b1xQEHKpSyO\n",
    );
    let setup = setup
        .line(&format!("authentication: {{ htpasswd: {htpasswd:?}, rules: [{{ users: [me], repositories: [\"**\"] }}] }}"))
        .credentials(
            "shared.example: { username: robot, password: canary-password }\n\
             part.example/team: { username: robot, password: canary-password }\n\
             file.example: { username: robot, password: canary-password }\n",
        );
    let _mirror = setup.start().await;
    let text = log.text();
    let said = |upstream: &str, access: &str, readers: &str| {
        let lines = text.lines().filter(|line| {
            line.contains("who may read") && line.contains(&format!("upstream={upstream} "))
        });
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.len(), 1, "{upstream}: {lines:?}");
        let wanted = [format!("access=\"{access}\""), readers.to_owned()];
        for words in wanted {
            assert!(lines[0].contains(&words), "{words}: {lines:?}");
        }
    };
    let own = "whoever reaches the mirror reads all that its credential may read";
    said(
        "auto.example",
        "auto",
        "callers whose own token the registry takes",
    );
    said("shared.example", "shared", own);
    said("verify.example", "verify", "callers whose own token");
    said(
        "known.example",
        "authenticated",
        "clients that log in to the mirror",
    );
    said(
        "part.example",
        "auto",
        &format!("{own}, below team/**; elsewhere"),
    );
    // Named in the credentials file alone.
    said("file.example", "auto", own);
    said("\"any other\"", "auto", "what is public: anybody");
    assert!(!text.contains("canary"), "{text}");
}
