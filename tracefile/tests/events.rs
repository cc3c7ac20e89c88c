//! The merged stream through a closure and through an iterator is that which a consumer gets.

mod common;

use common::{open_bytes, true_run};
use rmtrace_file::{Consumer, TraceReader};
use rmtrace_format::Event;
use std::ops::ControlFlow;
use std::sync::Arc;

#[derive(Default)]
struct All(Vec<Event>);

impl Consumer for All {
    fn event(&mut self, event: &Event) {
        self.0.push(*event);
    }
}

fn all(reader: &TraceReader) -> Vec<Event> {
    let mut all = All::default();
    // Of a damaged trace, what came before.
    let _ = reader.merge(&mut all);
    all.0
}

fn bytes() -> Vec<u8> {
    true_run(3, 3, 3, 4_000, 4).to_trace()
}

#[test]
fn closure_and_iterator_get_what_a_consumer_gets() {
    let reader = Arc::new(open_bytes(&bytes()).unwrap());
    let expected = all(&reader);
    assert!(
        expected.len() > 3 * 4096,
        "several batches: {}",
        expected.len()
    );
    let mut told = Vec::new();
    let stats = reader.for_each_event(|event| {
        told.push(*event);
        ControlFlow::Continue(())
    });
    assert_eq!(stats.unwrap().events, expected.len() as u64);
    assert!(told == expected);
    let iterated: Result<Vec<Event>, _> = reader.events().collect();
    assert!(iterated.unwrap() == expected);
}

#[test]
fn whoever_has_enough_gets_no_more() {
    let reader = Arc::new(open_bytes(&bytes()).unwrap());
    let expected = all(&reader);
    let mut told = Vec::new();
    let stats = reader.for_each_event(|event| {
        told.push(*event);
        if told.len() < 7 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    assert!(stats.unwrap().stopped);
    assert_eq!(told, expected[..7]);
    let few: Vec<Event> = reader.events().take(5).map(Result::unwrap).collect();
    assert_eq!(few, expected[..5]);
    // The thread ended with its iterator: nothing else holds the trace.
    assert_eq!(Arc::strong_count(&reader), 1);
}

#[test]
fn an_error_comes_last_and_once() {
    let mut bytes = bytes();
    let whole = open_bytes(&bytes).unwrap();
    let last = &whole.frames()[whole.frames().len() - 1];
    let middle = (last.offset + last.bytes / 2) as usize;
    bytes[middle] ^= 0x55;
    let reader = Arc::new(open_bytes(&bytes).unwrap());
    let mut events = reader.events();
    let good: Vec<Event> = events.by_ref().map_while(Result::ok).collect();
    assert!(!good.is_empty());
    assert!(good == all(&reader));
    assert!(events.next().is_none());
    let errors = reader.events().filter(Result::is_err).count();
    assert_eq!(errors, 1);
}
