//! `tinkerbell.v1.NodeService`.

use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::call::client;
use super::pb::node_service_server::NodeService;
use super::pb::{self, dump_response};
use super::stream::all;
use super::words;
use crate::service::Service;

/// How many jobs a message of a dump has.
const DUMP_JOBS: usize = 256;

/// How much text a message of a dump has, in bytes.
const DUMP_TEXT_BYTES: usize = 64 * 1024;

pub(super) struct Node(pub(super) Service);

#[tonic::async_trait]
impl NodeService for Node {
    async fn get(
        &self,
        _: Request<pb::NodeServiceGetRequest>,
    ) -> Result<Response<pb::NodeServiceGetResponse>, Status> {
        let node = Some(words::node(self.0.node().await?));
        Ok(Response::new(pb::NodeServiceGetResponse { node }))
    }

    type DumpStream = BoxStream<pb::DumpResponse>;

    async fn dump(
        &self,
        _: Request<pb::DumpRequest>,
    ) -> Result<Response<Self::DumpStream>, Status> {
        let dump = self.0.dump().await?;
        let mut parts = vec![dump_response::Part::Engine(dump_response::Engine {
            node: Some(words::node(dump.node)),
            trace_hash: dump.trace_hash,
            batches_in_flight: dump.batches_in_flight as u64,
            entries_open: dump.entries_open,
            needed_from: dump.needed_from,
        })];
        for jobs in dump.jobs.chunks(DUMP_JOBS) {
            let jobs = jobs.iter().cloned().map(words::job).collect();
            parts.push(dump_response::Part::Jobs(dump_response::Jobs { jobs }));
        }
        let mut text = dump.text.as_str();
        while !text.is_empty() {
            let (piece, rest) = text.split_at(text.floor_char_boundary(DUMP_TEXT_BYTES));
            parts.push(dump_response::Part::Text(piece.to_owned()));
            text = rest;
        }
        let messages = parts
            .into_iter()
            .map(|part| pb::DumpResponse { part: Some(part) });
        Ok(Response::new(all(messages.collect())))
    }

    async fn reload(
        &self,
        _: Request<pb::ReloadRequest>,
    ) -> Result<Response<pb::ReloadResponse>, Status> {
        let reload = self.0.reload().await?;
        Ok(Response::new(pb::ReloadResponse {
            accepted: reload.accepted,
            applied: reload.applied,
            needs_restart: reload.needs_restart,
            error: reload.error,
        }))
    }

    async fn drain(
        &self,
        request: Request<pb::DrainRequest>,
    ) -> Result<Response<pb::DrainResponse>, Status> {
        let client = client(&request);
        let stop = request.into_inner().stop.unwrap_or(true);
        self.0.drain(client, stop).await?;
        Ok(Response::new(pb::DrainResponse {}))
    }

    async fn shutdown(
        &self,
        request: Request<pb::ShutdownRequest>,
    ) -> Result<Response<pb::ShutdownResponse>, Status> {
        self.0.shutdown(client(&request)).await?;
        Ok(Response::new(pb::ShutdownResponse {}))
    }
}
