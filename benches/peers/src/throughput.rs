//! Runs the peers over the same input, one after another, round after round.

use std::error::Error;

use crate::bench::Bench;
use crate::case::{Bound, Case, Data};
use crate::copy::{copy, load_input};
use crate::peer::Peer;
use crate::results::{CaseResult, PeerRuns, Run};
use crate::verify::Output;

/// Has the broker do once what it is measured with: the first transactions make its internal
/// topics, and its code is compiled while it runs.
pub(crate) fn warm_up(bench: &mut Bench) -> Result<(), Box<dyn Error>> {
    for (bound, records) in [(Bound::Interval, 1_000_000), (Bound::Records, 50_000)] {
        let case = Case { bytes: 200, data: Data::Random, bound, partitions: 4, records };
        let input = load_input(bench, &case)?;
        for peer in [Peer::Raw, Peer::AtLeastOnce] {
            once(bench, &case, &input, peer)
                .map_err(|error| format!("warming up: {case}: {peer}: {error}"))?;
        }
        bench.kafka.delete_topic(&input)?;
    }
    Ok(())
}

/// Runs one case, the peers interleaved.
pub(crate) fn run(bench: &mut Bench, case: Case) -> Result<CaseResult, Box<dyn Error>> {
    let input = load_input(bench, &case)?;
    let mut peers: Vec<PeerRuns> =
        bench.peers.iter().map(|&peer| PeerRuns { peer, runs: Vec::new() }).collect();
    for round in 0..bench.rounds {
        // Nobody is always the first after a pause, or always runs after the same neighbour.
        let first = usize::try_from(round)? % peers.len().max(1);
        for at in (first..peers.len()).chain(0..first) {
            let Some(PeerRuns { peer, runs }) = peers.get_mut(at) else { continue };
            match once(bench, &case, &input, *peer) {
                Ok(run) => {
                    eprintln!("  {peer}: {:.0} messages/s", run.messages_per_s);
                    runs.push(run);
                }
                Err(error) => bench.failed(format!("{case}: {peer}: {error}")),
            }
        }
    }
    bench.kafka.delete_topic(&input)?;
    Ok(CaseResult { case, peers })
}

/// One run of one peer.
fn once(bench: &mut Bench, case: &Case, input: &str, peer: Peer) -> Result<Run, Box<dyn Error>> {
    let copied = copy(bench, case, input, |job, tools| vec![job.command(peer, tools)])?;
    copied.run(case, Output::is_exact)
}
