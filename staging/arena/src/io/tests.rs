use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::*;
use crate::{ArenaOptions, PagePolicy};

fn arena(bytes: usize) -> Arena {
    let options = ArenaOptions { name: "io".to_owned(), bytes, pages: PagePolicy::Small, lock: false };
    Arena::new(&options).expect("memory for a test")
}

fn bytes_of(arena: &Arena, offset: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    arena.copy_out(offset, &mut bytes);
    bytes
}

#[test]
fn a_socket_is_read_straight_into_place() {
    let arena = arena(4096);
    let (mut near, far) = UnixStream::pair().unwrap();
    near.write_all(b"payload and more").unwrap();
    assert_eq!(arena.recv_into(far.as_fd(), 100, 7).unwrap(), 7);
    assert_eq!(arena.recv_into(far.as_fd(), 200, 3896).unwrap(), 9);
    assert_eq!(bytes_of(&arena, 100, 8), b"payload\0");
    assert_eq!(bytes_of(&arena, 199, 11), b"\0 and more\0");
    far.set_nonblocking(true).unwrap();
    assert_eq!(arena.recv_into(far.as_fd(), 0, 1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(near);
    assert_eq!(arena.recv_into(far.as_fd(), 0, 10).unwrap(), 0, "the end of the stream");
}

#[test]
#[should_panic(expected = "97 bytes at offset 4000 of arena \"io\", which has 4096")]
fn nothing_is_read_beyond_the_end() {
    let (mut near, far) = UnixStream::pair().unwrap();
    near.write_all(&[1; 97]).unwrap();
    let _ = arena(4096).recv_into(far.as_fd(), 4000, 97);
}

#[test]
#[should_panic(expected = "2 bytes at offset 4095 of arena \"io\", which has 4096")]
fn nothing_is_written_from_beyond_the_end() {
    let (near, _far) = UnixStream::pair().unwrap();
    let arena = arena(4096);
    let _ = writev(near.as_fd(), &[IoPart::Bytes(b"x"), IoPart::Arena { arena: &arena, offset: 4095, len: 2 }]);
}

#[test]
fn a_file_is_read_and_written_in_place_and_at_its_place() {
    let arena = arena(4096);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"0123456789").unwrap();
    arena.read_exact_at(file.as_fd(), 3, 100, 5).unwrap();
    assert_eq!(bytes_of(&arena, 99, 7), b"\x0034567\0");
    let error = arena.read_exact_at(file.as_fd(), 8, 200, 5).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    arena.write_all_at(file.as_fd(), 0, 101, 3).unwrap();
    file.rewind().unwrap();
    let mut all = String::new();
    file.read_to_string(&mut all).unwrap();
    assert_eq!(all, "4563456789");
}

#[test]
#[should_panic(expected = "97 bytes at offset 4000 of arena \"io\", which has 4096")]
fn nothing_of_a_file_is_read_beyond_the_end() {
    let _ = arena(4096).read_exact_at(tempfile::tempfile().unwrap().as_fd(), 0, 4000, 97);
}

/// Header from ordinary memory, two pieces of one arena and one of another, an empty piece in between.
fn parts<'a>(first: &'a Arena, second: &'a Arena) -> [IoPart<'a>; 5] {
    first.copy_in(0, b"abcdef");
    second.copy_in(9, b"XYZ");
    [
        IoPart::Bytes(b"head "),
        IoPart::Arena { arena: first, offset: 3, len: 3 },
        IoPart::Bytes(b""),
        IoPart::Arena { arena: second, offset: 9, len: 3 },
        IoPart::Arena { arena: first, offset: 0, len: 2 },
    ]
}

#[test]
fn pieces_leave_in_order_by_socket_pipe_and_file() {
    let (first, second) = (arena(4096), arena(4096));
    let parts = parts(&first, &second);
    assert_eq!(parts.iter().map(IoPart::len).sum::<usize>(), 13);
    let mut got = [0; 13];

    let (near, mut far) = UnixStream::pair().unwrap();
    assert_eq!(writev(near.as_fd(), &parts).unwrap(), 13);
    far.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"head defXYZab");

    let (mut reader, writer) = io::pipe().unwrap();
    assert_eq!(writev(writer.as_fd(), &parts).unwrap(), 13);
    reader.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"head defXYZab");

    let mut file: File = tempfile::tempfile().unwrap();
    assert_eq!(writev(file.as_fd(), &parts).unwrap(), 13);
    file.rewind().unwrap();
    file.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"head defXYZab");
}

#[test]
fn nothing_to_write_is_no_system_call() {
    // A descriptor that can't be written would say so.
    let (reader, _writer) = io::pipe().unwrap();
    assert_eq!(writev(reader.as_fd(), &[]).unwrap(), 0);
    assert_eq!(writev(reader.as_fd(), &[IoPart::Bytes(b"")]).unwrap(), 0);
    assert!(IoPart::Bytes(b"").is_empty());
    assert!(writev(reader.as_fd(), &[IoPart::Bytes(b"x")]).is_err());
}

#[test]
fn pieces_past_the_limit_wait_for_the_next_call() {
    let arena = arena(4096);
    let (near, mut far) = UnixStream::pair().unwrap();
    let bytes: Vec<u8> = (0..=99).collect();
    arena.copy_in(0, &bytes);
    let parts: Vec<IoPart<'_>> = (0..100).map(|offset| IoPart::Arena { arena: &arena, offset, len: 1 }).collect();
    assert_eq!(writev(near.as_fd(), &parts).unwrap(), MAX_PARTS);
    assert_eq!(writev(near.as_fd(), &parts[MAX_PARTS..]).unwrap(), 100 - MAX_PARTS);
    let mut got = [0; 100];
    far.read_exact(&mut got).unwrap();
    assert_eq!(got.as_slice(), bytes);
}

#[test]
fn a_full_socket_takes_a_part_and_then_would_block() {
    let arena = arena(8 << 20);
    let pattern: Vec<u8> = (0..arena.len()).map(|i| (i % 251).to_le_bytes()[0]).collect();
    arena.copy_in(0, &pattern);
    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let whole = [IoPart::Arena { arena: &arena, offset: 0, len: arena.len() }];
    let sent = writev(near.as_fd(), &whole).unwrap();
    assert!(sent > 0 && sent < arena.len(), "{sent}");
    assert_eq!(writev(near.as_fd(), &whole).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let mut got = vec![0; sent];
    far.read_exact(&mut got).unwrap();
    assert_eq!(got, pattern[..sent]);
}
