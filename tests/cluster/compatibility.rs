//! `stockhold check --compat` on a cluster: each primary is tried, and what is about all of them comes first.

use crate::support::cluster::Cluster;
use crate::support::stockhold::program;

fn tried(cluster: &Cluster, url: &str) -> (String, Option<i32>) {
    let mut command = program(&["check", "--compat", "--redis-url", url]);
    if let Some(ca) = cluster.nodes[0].ca() {
        command.arg("--redis-ca").arg(ca);
    }
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[tokio::test]
async fn each_primary_is_tried() {
    let cluster = Cluster::start().await;
    let (printed, status) = tried(&cluster, &cluster.url());
    assert_eq!(status, Some(0), "{printed}");
    assert!(printed.starts_with("CLUSTER SLOTS          ok             3 primaries\n"), "{printed}");
    assert!(printed.contains("\nCLUSTER SHARDS         ok             6 nodes\n"), "{printed}");
    for node in 0..3 {
        assert!(printed.contains(&format!("\n{}:\nserver", cluster.address(node))), "{printed}");
    }
    for what in ["EVALSHA", "TIME, and a change", "cluster", "ASKING", "WAIT", "SCAN"] {
        assert_eq!(printed.matches(&format!("\n{what:<22} ok")).count(), 3, "{what}: {printed}");
    }
    for node in 0..6 {
        assert_eq!(cluster.ask::<u64>(node, &["DBSIZE"]).await, 0);
    }
}

#[tokio::test]
async fn a_missing_right_has_its_line() {
    let cluster = Cluster::start().await;
    let url = cluster.url().replacen("://", "://hosted:secret@", 1);
    for (right, line, expected) in [
        ("-cluster|slots", "CLUSTER SLOTS          will not work  the nodes of the cluster cannot be found: NOPERM", 1),
        (
            "-cluster|shards",
            "CLUSTER SHARDS         will not work  the scripts cannot be loaded into all nodes: NOPERM",
            1,
        ),
        ("-asking", "ASKING                 warning        keys cannot be reached while their slot moves: NOPERM", 0),
    ] {
        for node in 0..6 {
            let user = ["ACL", "SETUSER", "hosted", "reset", "on", ">secret", "~*", "+@all", right];
            cluster.tell(node, &user).await;
        }
        let (printed, status) = tried(&cluster, &url);
        assert!(printed.contains(line), "{line} in {printed}");
        assert_eq!(status, Some(expected), "{printed}");
    }
}
