//! The checking build, through the C functions: each misuse that only it finds is found, told with the offender's
//! name, and answered as `src/guarded.rs` says; and a program without faults is told nothing.

use std::path::Path;
use std::process::{Command, Output};

const PROGRAM: &str = r#"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
typedef int status_t;
typedef struct memory memory_t;
status_t rmalloc(memory_t **, ssize_t);
status_t rmalloc_aligned(memory_t **, ssize_t, size_t);
status_t rmlock(memory_t *, void **);
status_t rmunlock(memory_t *);
status_t rmfree(memory_t *);
status_t rmresize(memory_t *, ssize_t);
status_t rmsize(memory_t *, size_t *);
status_t rmcompact(uint64_t, void *);
typedef struct {
    uint64_t handle, requested_bytes, slot_bytes, offset;
    uint8_t found;
    uint32_t check, call;
} damage_t;
void rmdamage(void (*)(const damage_t *));
enum { OK = 0, HANDLE = 5, DAMAGED = 13 };
enum { END = 1, SIZE, FREE };
enum { ALLOC = 1, FREED, LOCK, UNLOCK, RESIZE, COMPACT };

static damage_t last;
static int count;
static void told(const damage_t *damage) { last = *damage; count++; }

#define IS(found, expected) do { \
    long long f = (long long)(found), e = (long long)(expected); \
    if (f != e) { printf("line %d: %s is %lld, not %lld\n", __LINE__, #found, f, e); exit(1); } \
} while (0)

/* The damage told last, and that there was just this one. */
static void expect(int line, memory_t *of, uint64_t requested, uint64_t offset, int found, uint32_t check, uint32_t call) {
    if (count != 1 || last.handle != (uintptr_t)of || last.requested_bytes != requested || last.offset != offset
        || last.found != found || last.check != check || last.call != call) {
        printf("line %d: told %d: handle %llx requested %lld offset %lld found %x check %u call %u\n", line, count,
            (unsigned long long)last.handle, (long long)last.requested_bytes, (long long)last.offset, last.found, last.check, last.call);
        exit(1);
    }
    count = 0;
}
#define EXPECT(...) expect(__LINE__, __VA_ARGS__)

static unsigned char *at(memory_t *memory) {
    void *place;
    IS(rmlock(memory, &place), OK);
    IS(rmunlock(memory), OK);
    return place;
}

static memory_t *make(ssize_t size) {
    memory_t *memory;
    IS(rmalloc(&memory, size), OK);
    return memory;
}

int main(int argc, char **argv) {
    void *place;
    size_t usable;
    memory_t *block = make(100), *other;
    IS(rmsize(block, &usable), OK);
    IS(usable, 100);
    IS(at(block)[0], 0xcd);

    if (argc > 1) {
        /* Told on standard error. */
        at(block)[103] = 'A';
        IS(rmfree(block), DAMAGED);
        printf("%p\n", (void *)block);
        return 0;
    }
    rmdamage(told);

    /* Behind the end, found by unlock: told once, and the lock is given back. */
    IS(rmlock(block, &place), OK);
    memset(place, 1, 101);
    IS(rmunlock(block), DAMAGED);
    EXPECT(block, 100, 100, 1, END, UNLOCK);
    IS(rmunlock(block), 7);
    /* By lock: refused, once. */
    at(block)[105] = 7;
    IS(rmlock(block, &place), DAMAGED);
    EXPECT(block, 100, 105, 7, END, LOCK);
    at(block);
    /* By resize: refused, once. */
    at(block)[100] = 8;
    IS(rmresize(block, 5000), DAMAGED);
    EXPECT(block, 100, 100, 8, END, RESIZE);
    IS(rmresize(block, 5000), OK);
    IS(rmsize(block, &usable), OK);
    IS(usable, 5000);
    IS(at(block)[99], 1);
    at(block)[5000] = 9;
    IS(rmresize(block, 30), DAMAGED);
    EXPECT(block, 5000, 5000, 9, END, RESIZE);
    IS(rmresize(block, 30), OK);
    IS(rmresize(block, 29), OK);
    /* By free: done. */
    at(block)[29] = 10;
    IS(rmfree(block), DAMAGED);
    EXPECT(block, 29, 29, 10, END, FREED);
    IS(rmfree(block), HANDLE);

    /* So far that the size is gone. */
    block = make(200);
    memset(at(block) + 200, 0x55, 56);
    IS(rmfree(block), DAMAGED);
    IS(count, 1);
    IS(last.check, SIZE);
    IS(last.requested_bytes, -1);
    count = 0;

    /* Alignments, and blocks with pages of their own. */
    IS(rmalloc_aligned(&block, 100, 4096), OK);
    IS((uintptr_t)at(block) % 4096, 0);
    at(block)[100] = 1;
    IS(rmfree(block), DAMAGED);
    EXPECT(block, 100, 100, 1, END, FREED);
    block = make(1 << 20);
    at(block)[1 << 20] = 1;
    IS(rmfree(block), DAMAGED);
    EXPECT(block, 1 << 20, 1 << 20, 1, END, FREED);

    /* In front: the block before has it. */
    memory_t *row[64];
    unsigned char *places[64];
    for (int i = 0; i < 64; i++) { row[i] = make(300); places[i] = at(row[i]); }
    for (int i = 0; i < 64; i++) for (int j = 0; j < 64; j++)
        if (places[j] > places[i] && places[j] - places[i] < 400 && count == 0) {
            uint64_t slot = places[j] - places[i];
            int wrong = places[j][-1] ^= 0xff;
            IS(rmfree(row[i]), DAMAGED);
            EXPECT(row[i], 300, slot - 1, wrong, SIZE, FREED);
            row[i] = make(300);
            count = 100;
        }
    IS(count, 100);
    count = 0;
    for (int i = 0; i < 64; i++) IS(rmfree(row[i]), OK);

    /* After free, found when the memory is used again. */
    block = make(700);
    unsigned char *kept = at(block);
    IS(rmfree(block), OK);
    IS(kept[50], 0xdb);
    kept[50] = 3;
    for (int i = 0; i < 20 && count == 0; i++) row[i] = make(700);
    EXPECT(block, -1, 50, 3, FREE, ALLOC);

    /* By an address kept after unlock, when the block has moved. */
    enum { MANY = 20000 };
    static memory_t *many[MANY];
    for (int i = 0; i < MANY; i++) many[i] = make(60);
    for (int i = 0; i < MANY; i++) if (i % 4) { IS(rmfree(many[i]), OK); many[i] = 0; }
    int moved = -1;
    static unsigned char *before[MANY];
    for (int i = 0; i < MANY; i++) if (many[i]) before[i] = at(many[i]);
    /* Beyond its end, found by the move. */
    for (int i = 0; i < MANY; i++) if (many[i]) before[i][61] = 0xfe;
    IS(rmcompact(0, NULL), DAMAGED);
    int seen = count;
    IS(seen > 100, 1);
    IS(last.check, END);
    IS(last.call, COMPACT);
    IS(last.requested_bytes, 60);
    IS(last.offset, 61);
    int changed = 0;
    for (int i = 0; i < MANY; i++) if (many[i]) {
        status_t status = rmlock(many[i], &place);
        if (status == DAMAGED) { IS(rmlock(many[i], &place), OK); IS(place == before[i], 1); }
        else { IS(status, OK); IS(place != before[i], 1); changed++; }
        IS(rmunlock(many[i]), OK);
    }
    IS(changed, seen);
    count = 0;
    IS(rmcompact(0, NULL), OK);

    /* What is written to the old place of a block that moved is found when the place is used again. */
    for (int i = 0; i < MANY; i++) if (many[i]) IS(rmfree(many[i]), OK);
    IS(rmcompact(0, NULL), OK);
    enum { SOME = 300 };
    for (int i = 0; i < SOME; i++) many[i] = make(900);
    for (int i = 0; i < SOME; i++) before[i] = at(many[i]);
    for (int i = 0; i < SOME; i++) if (i % 3) { IS(rmfree(many[i]), OK); many[i] = 0; }
    /* Some stay, and so do the pages that they lie in. */
    for (int i = 0; i < SOME; i += 30) IS(rmlock(many[i], &place), OK);
    IS(rmcompact(0, NULL), OK);
    IS(count, 0);
    for (int i = 0; i < SOME; i++) if (many[i] && at(many[i]) != before[i]) { moved = i; break; }
    IS(moved >= 0, 1);
    /* Its old place may hold another block now, or its page may be gone; a place that is poisoned is neither. */
    int written = 0;
    for (int i = 0; i < SOME; i++) {
        int used = 0;
        for (int j = 0; j < SOME; j++) used |= many[j] && at(many[j]) == before[i];
        if (many[i] && !used && before[i][100] == 0xdb && before[i][10] == 0xdb) { before[i][100] = 4; written++; }
    }
    for (int i = 0; i < 2 * SOME; i++) block = make(900);
    IS(written > 0, 1);
    IS(count, written);
    IS(last.check, FREE);
    IS(last.offset, 100);
    count = 0;

    /* A program without faults. */
    static memory_t *live[3000];
    static int sizes[3000];
    uint32_t random = 1;
    for (int step = 0; step < 200000; step++) {
        random = random * 1664525 + 1013904223;
        int i = random >> 8 & 0xfff, size = 1 + (random >> 20) % 2000;
        if (i >= 3000) continue;
        if (!live[i]) { live[i] = make(size); sizes[i] = size; }
        else if (random >> 30 == 0) { IS(rmresize(live[i], size), OK); sizes[i] = size; }
        else if (random >> 30 == 1) {
            IS(rmlock(live[i], &place), OK);
            memset(place, step, sizes[i]);
            IS(rmunlock(live[i]), OK);
        } else { IS(rmfree(live[i]), OK); live[i] = NULL; }
        if (step % 5000 == 0) IS(rmcompact(0, NULL), OK);
    }
    IS(count, 0);
    return 0;
}
"#;

fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}:\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

#[test]
fn misuse_is_found_and_named() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("checked");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "rustc",
        "-p",
        "rmalloc",
        "--lib",
        "--release",
        "--features",
        "checked",
        "--crate-type",
        "staticlib",
        "--offline",
    ]);
    cargo
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    run(&mut cargo);
    let dir = tempfile::tempdir().expect("a directory");
    let (source, program) = (dir.path().join("misuse.c"), dir.path().join("misuse"));
    std::fs::write(&source, PROGRAM).expect("the program");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-O1", "-g", "-Wall", "-Wno-array-bounds", "-o"])
        .arg(&program)
        .arg(&source);
    cc.arg(target.join("release/librmalloc.a"))
        .args(["-lpthread", "-ldl", "-lm"]);
    run(&mut cc);
    run(&mut Command::new(&program));

    let told = run(Command::new(&program).arg("stderr"));
    let handle = String::from_utf8(told.stdout).expect("text");
    let expected = format!(
        "rmalloc: block {} (heap 0x1 entry 0 generation 0) of 100 bytes was written beyond its end: byte 103 is 0x41, found by free\n",
        handle.trim()
    );
    assert_eq!(String::from_utf8(told.stderr).expect("text"), expected);
}
