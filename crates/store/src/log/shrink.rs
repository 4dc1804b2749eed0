//! Makes a list of operations that fails shorter, so that a person can read it. For tests.

use super::model::{Op, Run, run};

/// Leaves out operations as long as what is left fails: ever smaller parts of the list, then entries of groups.
pub(super) fn shrink<T: Clone>(list: &[T], fails: &mut dyn FnMut(&[T]) -> bool) -> Vec<T> {
    let mut list = list.to_vec();
    let mut size = list.len().div_ceil(2);
    while size > 0 {
        let (mut from, mut is_shorter) = (0, false);
        while from < list.len() {
            let mut shorter = list.clone();
            shorter.drain(from..(from + size).min(list.len()));
            if fails(&shorter) {
                list = shorter;
                is_shorter = true;
            } else {
                from += size;
            }
        }
        if size > 1 || !is_shorter {
            size /= 2;
        }
    }
    list
}

/// The shortest list of operations that was found to fail, and how it fails.
pub(super) fn shortest(ops: &[Op], with: Run) -> (Vec<Op>, String) {
    let mut ops = shrink(ops, &mut |ops| run(ops, with).is_err());
    for at in 0..ops.len() {
        let Op::Write(parts) = &ops[at] else { continue };
        let parts = shrink(&parts.clone(), &mut |parts| {
            let mut ops = ops.clone();
            ops[at] = Op::Write(parts.to_vec());
            run(&ops, with).is_err()
        });
        ops[at] = Op::Write(parts);
    }
    let wrong = run(&ops, with).err().unwrap_or_default();
    (ops, wrong)
}

#[test]
fn a_list_shrinks_to_what_fails() {
    let list: Vec<u32> = (0..100).collect();
    let mut fails = |list: &[u32]| list.contains(&17) && list.contains(&80);
    assert_eq!(shrink(&list, &mut fails), [17, 80]);
}
