use super::*;

fn arena(bytes: usize, pages: PagePolicy) -> Arena {
    Arena::new(&ArenaOptions { name: "test".to_owned(), bytes, pages, lock: false }).expect("memory for a test")
}

#[test]
fn it_begins_with_zeros_and_keeps_what_is_put_in() {
    for pages in [PagePolicy::Auto, PagePolicy::Transparent, PagePolicy::Small] {
        let arena = arena(3 << 20, pages);
        assert!(arena.is_zero(0, arena.len()), "{pages:?}");
        let last = arena.len() - 5;
        arena.copy_in(last, b"hello");
        let mut back = [0; 5];
        arena.copy_out(last, &mut back);
        assert_eq!(&back, b"hello", "{pages:?}");
        assert!(arena.is_zero(0, last) && !arena.is_zero(0, last + 1), "{pages:?}");
    }
}
