//! Sorted lists, one of each shard, read as one: a little of each at once, and more of those that run out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Error;

/// Lists of which the beginnings are read together: a millisecond of Redis's time at worst.
const READ_TOGETHER: usize = 512;

/// A list, and after which of its items the next read begins; at its beginning for `None`.
pub(super) type Reading<T> = (usize, Option<T>);

/// Where the lists are read.
pub(super) trait Lists {
    type Item: Ord + Clone + Send + Sync;

    /// The number of lists.
    fn number(&self) -> usize;

    /// Reads the next items of some lists, `count` at most of each.
    fn read(
        &self,
        readings: &[Reading<Self::Item>],
        count: usize,
    ) -> impl Future<Output = Result<Vec<Vec<Self::Item>>, Error>> + Send;
}

/// The first items of all lists, `limit` at most, each with the number of its list; equal items in the order of the
/// lists. No more than `page` items of a list are read at once.
pub(super) async fn merge<L: Lists>(from: &L, limit: usize, page: usize) -> Result<Vec<(usize, L::Item)>, Error> {
    let lists = from.number();
    let mut ahead = Ahead { waiting: BinaryHeap::new(), lists: (0..lists).map(|_| List::default()).collect() };
    // Twice as many as each list has in the result on average: most lists are then read once.
    let count = if lists == 1 { limit } else { 2 * limit / lists + 1 }.min(page);
    let all: Vec<Reading<L::Item>> = (0..lists).map(|list| (list, None)).collect();
    for some in all.chunks(READ_TOGETHER) {
        ahead.take(some, count, from.read(some, count).await?);
    }
    let mut merged = Vec::new();
    while merged.len() < limit {
        let Some(Reverse((item, list))) = ahead.waiting.pop() else { break };
        let of = &mut ahead.lists[list];
        of.waiting -= 1;
        let runs_out = of.waiting == 0 && !of.is_read;
        if runs_out && merged.len() + 1 < limit {
            let count = page.min(limit - merged.len());
            let next = [(list, of.last.take())];
            ahead.take(&next, count, from.read(&next, count).await?);
        }
        merged.push((list, item));
    }
    Ok(merged)
}

/// What was read and is not in the result yet.
struct Ahead<T> {
    waiting: BinaryHeap<Reverse<(T, usize)>>,
    lists: Vec<List<T>>,
}

struct List<T> {
    waiting: usize,
    /// The last item that was read.
    last: Option<T>,
    is_read: bool,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { waiting: 0, last: None, is_read: false }
    }
}

impl<T: Ord + Clone> Ahead<T> {
    fn take(&mut self, read: &[Reading<T>], count: usize, pages: Vec<Vec<T>>) {
        for ((list, _), page) in read.iter().zip(pages) {
            let of = &mut self.lists[*list];
            of.is_read = page.len() < count;
            of.waiting += page.len();
            of.last = page.last().cloned();
            self.waiting.extend(page.into_iter().map(|item| Reverse((item, *list))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists in memory.
    struct Memory<'a> {
        lists: &'a [Vec<u32>],
        page: usize,
    }

    impl Lists for Memory<'_> {
        type Item = u32;

        fn number(&self) -> usize {
            self.lists.len()
        }

        async fn read(&self, readings: &[Reading<u32>], count: usize) -> Result<Vec<Vec<u32>>, Error> {
            assert!((1..=self.page).contains(&count));
            let after = |(list, last): &Reading<u32>| {
                let after = self.lists[*list].iter().copied().filter(|item| last.is_none_or(|last| *item > last));
                after.take(count).collect()
            };
            Ok(readings.iter().map(after).collect())
        }
    }

    async fn merged(lists: &[Vec<u32>], limit: usize, page: usize) -> Vec<(usize, u32)> {
        merge(&Memory { lists, page }, limit, page).await.unwrap()
    }

    #[tokio::test]
    async fn lists_of_any_length_are_one_list() {
        let mut lists = vec![Vec::new(); 600];
        for number in 0..3000u32 {
            // Some lists have many neighbours, and some have nothing.
            lists[(number.wrapping_mul(2_654_435_761) >> 16) as usize % 7 * (number as usize / 100) % 600].push(number);
        }
        for limit in [1, 10, 999, 3000, 4000] {
            for page in [1, 7, 100] {
                let merged: Vec<u32> = merged(&lists, limit, page).await.into_iter().map(|(_, item)| item).collect();
                assert_eq!(merged, (0..3000.min(limit as u32)).collect::<Vec<_>>(), "{limit} {page}");
            }
        }
    }

    #[tokio::test]
    async fn equal_items_are_in_the_order_of_their_lists() {
        let lists = [vec![1, 5], vec![1, 2, 5], vec![], vec![5]];
        assert_eq!(merged(&lists, 10, 2).await, [(0, 1), (1, 1), (1, 2), (0, 5), (1, 5), (3, 5)]);
        assert_eq!(merged(&lists, 2, 2).await, [(0, 1), (1, 1)]);
        assert!(merged(&[vec![]], 2, 2).await.is_empty());
    }
}
