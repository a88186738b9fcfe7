//! Reading the stock: what `inventory` lists.

use crate::call::{LONG_MS, hold, inventory, line, seed};
use crate::fixture::{ACTIVE, LAPSED, ScriptFixture, hold_many, id};

#[tokio::test]
async fn lists_active_reservations_by_expiry_up_to_the_limit() {
    let mut fixture = ScriptFixture::open().await;
    fixture.replies(&seed("tea", 10, &[])).await;
    let ids = [id(3), id(1), id(2)];
    let mut expected = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let reply = fixture.reply(&hold("each", &[line("tea", id).ttl_ms(LONG_MS + 1000 * n as u64)])).await;
        expected.push(vec!["ACTIVE".to_owned(), id.clone(), reply[1].clone()]);
    }
    for limit in [0, 1, 2, 3, 4, 1000] {
        let replies = fixture.replies(&inventory("tea", limit)).await;
        assert_eq!(replies[0][1..6], ["tea", "7", "3", "0", "10"]);
        assert_eq!(replies[0][8..], ["3", "0", ""], "all are counted, listed or not");
        assert_eq!(replies[1..], expected[..3.min(limit as usize)]);
    }
}

#[tokio::test]
async fn counts_the_lapsed_which_come_first() {
    let mut fixture = ScriptFixture::stocked().await;
    let replies = fixture.replies(&inventory("tea", 10)).await;
    assert_eq!(replies[0][8..], ["2", "1", ""]);
    assert_eq!([&*replies[1][1], &*replies[2][1]], [LAPSED, ACTIVE]);
}

#[tokio::test]
async fn lists_more_than_one_call_can_hold() {
    let mut fixture = ScriptFixture::open().await;
    fixture.replies(&seed("tea", 1000, &[])).await;
    hold_many(&mut fixture, "tea", 100, LONG_MS).await;
    let more: Vec<String> = (100..150).map(id).collect();
    let lines: Vec<_> = more.iter().map(|id| line("tea", id)).collect();
    fixture.replies(&hold("each", &lines)).await;
    assert_eq!(fixture.replies(&inventory("tea", 1000)).await.len(), 151);
}

#[tokio::test]
async fn shows_when_the_stock_last_changed() {
    let mut fixture = ScriptFixture::stocked().await;
    let updated = fixture.field("inventory:tea", "updatedAt").await;
    let version = fixture.field("inventory:tea", "version").await;
    assert_eq!(fixture.replies(&inventory("tea", 0)).await[0][6..8], [updated, version]);
}
