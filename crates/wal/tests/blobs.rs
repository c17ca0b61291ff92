//! Blobs: durable before they are named, shared when equal, checked when read.

mod common;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use wal::sim::{MemStorage, Op};
use wal::{BlobError, BlobId, BlobStore, OsStorage, Storage};

fn store(disk: &MemStorage) -> BlobStore {
    BlobStore::open("/blobs", Arc::new(disk.clone())).expect("a blob store")
}

#[test]
fn what_was_put_survives_and_what_was_not_is_missing() {
    let disk = MemStorage::new(1);
    let contents: Vec<Vec<u8>> = (0..40u32)
        .map(|n| vec![n as u8; (n * n) as usize])
        .collect();
    let blobs = store(&disk);
    let ids: Vec<BlobId> = contents
        .iter()
        .map(|content| blobs.put(content).expect("a blob"))
        .collect();
    disk.crash_with(|_| 0);
    let blobs = store(&disk);
    for (id, content) in ids.iter().zip(&contents) {
        assert_eq!(blobs.get(*id).expect("the blob"), *content);
    }
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(blobs.list().expect("a list"), sorted);

    let id = BlobId::of(b"never put");
    assert!(matches!(blobs.get(id), Err(BlobError::Missing { id: found }) if found == id));
    assert!(blobs.remove(ids[0]).expect("a removal"));
    assert!(!blobs.remove(ids[0]).expect("a removal"));
    assert!(matches!(blobs.get(ids[0]), Err(BlobError::Missing { .. })));
}

#[test]
fn ids_are_what_sha256sum_prints() {
    let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let id = BlobId::of(b"abc");
    assert_eq!(id.to_string(), text);
    assert_eq!(text.parse(), Ok(id));
    for bad in [
        "",
        "ba",
        &text[1..],
        &text.to_uppercase(),
        &format!("{text}0"),
        "zz",
    ] {
        assert!(bad.parse::<BlobId>().is_err(), "{bad}");
    }
    let blobs = store(&MemStorage::new(1));
    assert_eq!(blobs.path_of(id), Path::new("/blobs/ba").join(text));
}

#[test]
fn equal_contents_share_a_file() {
    let disk = MemStorage::new(1);
    let blobs = store(&disk);
    let id = blobs.put(b"the same").expect("a blob");
    disk.fail(Op::Write, 1, ErrorKind::Other);
    assert_eq!(blobs.put(b"the same").expect("no write is needed"), id);
    assert_eq!(disk.files().len(), 1);
}

/// A blob may have got its name and the process died before that was durable: sharing it makes it so.
#[test]
fn sharing_makes_the_name_durable() {
    let disk = MemStorage::new(1);
    store(&disk)
        .put(b"elsewhere in the directory")
        .expect("a blob");
    disk.fail(Op::SyncDir, 1, ErrorKind::Other);
    let content = (0u32..)
        .map(u32::to_le_bytes)
        .find(|content| BlobId::of(content).0[0] == BlobId::of(b"elsewhere in the directory").0[0]);
    let content = content.expect("another blob for the same directory");
    store(&disk)
        .put(&content)
        .expect_err("the directory cannot be synced");
    disk.kill();
    let id = store(&disk).put(&content).expect("a shared blob");
    disk.crash_with(|_| 0);
    assert_eq!(store(&disk).get(id).expect("it is there"), content);
}

#[test]
fn a_damaged_blob_is_never_handed_out_and_healed_by_putting_it_again() {
    let disk = MemStorage::new(1);
    let blobs = store(&disk);
    let id = blobs.put(b"precious").expect("a blob");
    let path = blobs.path_of(id);
    for damage in 0..2 {
        match damage {
            0 => disk.flip_bit(&path, 13),
            _ => disk.truncate(&path, 3),
        }
        let Err(BlobError::Damaged {
            path: found,
            expected,
            ..
        }) = blobs.get(id)
        else {
            panic!("damage was handed out");
        };
        assert_eq!((found, expected), (path.clone(), id));
        blobs.put(b"precious").expect("a blob");
        assert_eq!(blobs.get(id).expect("the blob"), b"precious");
    }
}

/// With the power failing after every change: a blob is there as a whole or not at all, and once put
/// returned, it is there.
#[test]
fn no_crash_leaves_half_a_blob() {
    for seed in 0..60 {
        let disk = MemStorage::new(seed);
        let content = vec![seed as u8; 3000];
        let blobs = store(&disk);
        disk.power_off_after(seed % 6);
        let put = blobs.put(&content);
        disk.crash();
        let blobs = store(&disk);
        match (put, blobs.get(BlobId::of(&content))) {
            (Ok(_), found) => assert_eq!(found.expect("it was put"), content),
            (Err(_), Ok(found)) => assert_eq!(found, content),
            (Err(_), Err(BlobError::Missing { .. })) => {}
            (Err(_), Err(error)) => panic!("{error}"),
        }
        blobs.remove_unfinished().expect("a sweep");
        assert_eq!(
            disk.files().len(),
            blobs.list().expect("a list").len(),
            "nothing else is left"
        );
    }
}

/// That a blob is gone is said only of one that is gone.
#[test]
fn a_removal_that_fails_is_told() {
    let disk = MemStorage::new(1);
    let blobs = store(&disk);
    let id = blobs.put(b"stays").expect("a blob");
    disk.fail(Op::Remove, 1, ErrorKind::PermissionDenied);
    assert!(matches!(blobs.remove(id), Err(BlobError::Io(_))));
    assert_eq!(blobs.get(id).expect("the blob"), b"stays");
}

/// What a crash has left behind is room for nothing: all of it goes, and whoever asks is told how much it was.
#[test]
fn unfinished_files_are_removed_and_counted() {
    let disk = MemStorage::new(1);
    let finished = store(&disk).put(b"finished").expect("a blob");
    for n in 1..=3u8 {
        // The file is made, filled and durable, and has not got its name.
        disk.power_off_after(3);
        store(&disk).put(&[n; 100]).expect_err("the power is off");
        disk.crash_with(|choices| choices - 1);
        assert_eq!(disk.files().len(), 1 + usize::from(n));
    }
    assert_eq!(store(&disk).remove_unfinished().expect("a sweep"), 3);
    assert_eq!(disk.files(), [store(&disk).path_of(finished)]);
    assert_eq!(store(&disk).remove_unfinished().expect("a sweep"), 0);
}

#[test]
fn a_full_disk_is_told_apart_and_leaves_nothing() {
    let disk = MemStorage::new(1);
    let blobs = store(&disk);
    disk.set_capacity(1000);
    assert!(matches!(blobs.put(&[1; 2000]), Err(BlobError::NoSpace(_))));
    assert_eq!(disk.files(), Vec::<std::path::PathBuf>::new());
    disk.set_capacity(u64::MAX);
    blobs.put(&[1; 2000]).expect("there is space again");
}

#[test]
fn blobs_on_real_files_from_many_threads() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::new());
    let blobs = BlobStore::open(dir.path(), storage).expect("a blob store");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..10u8 {
                    let id = blobs.put(&[n; 100]).expect("a blob");
                    assert_eq!(blobs.get(id).expect("the blob"), [n; 100]);
                }
            });
        }
    });
    assert_eq!(blobs.list().expect("a list").len(), 10);
    assert_eq!(blobs.remove_unfinished().expect("a sweep"), 0);
}
