//! `tinkerbell.v1.JobService`.

use prost::Message;
use tonic::codegen::{BoxStream, Bytes};
use tonic::{Request, Response, Status};

use super::call::client;
use super::pb::job_service_server::JobService;
use super::pb::{self, get_artifact_response, logs_response, watch_response};
use super::stream::{Source, all, sent};
use super::words;
use crate::fault::{Fault, FaultCode};
use crate::logs::{LogItem, LogQuery, LogStream};
use crate::service::{PAGE_MAX, Service, page_limit};
use crate::watch::{EventStream, Item, Watch};
use crate::wire::{CancelMany, JobQuery};

/// How many bytes of an artifact a message has.
const CHUNK_BYTES: usize = 64 * 1024;

/// A page ends early beyond so many bytes: clients take messages of 4 MiB unless told otherwise.
const PAGE_MAX_BYTES: usize = 2 << 20;

pub(super) struct Jobs(pub(super) Service);

#[tonic::async_trait]
impl JobService for Jobs {
    async fn submit(
        &self,
        request: Request<pb::SubmitRequest>,
    ) -> Result<Response<pb::SubmitResponse>, Status> {
        let spec = request.into_inner().spec;
        let spec = spec.ok_or_else(|| Fault::invalid_at("/spec", "is missing"))?;
        let submitted = self.0.submit(words::spec(spec)?).await?;
        Ok(Response::new(pb::SubmitResponse {
            job: submitted.job.to_string(),
            is_new: submitted.is_new,
        }))
    }

    async fn get(
        &self,
        request: Request<pb::JobServiceGetRequest>,
    ) -> Result<Response<pb::JobServiceGetResponse>, Status> {
        let details = self.0.details(&request.get_ref().job).await?;
        let details = Some(words::details(details));
        Ok(Response::new(pb::JobServiceGetResponse { details }))
    }

    async fn list(
        &self,
        request: Request<pb::ListRequest>,
    ) -> Result<Response<pb::ListResponse>, Status> {
        let request = request.into_inner();
        let query = JobQuery {
            states: words::states(&request.states)?,
            name: request.name,
            labels: request.labels,
            before: request
                .before
                .map(|id| words::id("/before", &id))
                .transpose()?,
            limit: request.limit.map(|limit| limit as usize),
        };
        let list = self.0.list(query).await?;
        let mut page = pb::ListResponse {
            jobs: Vec::with_capacity(list.jobs.len()),
            next: list.next.map(|next| next.to_string()),
        };
        let mut bytes = 0;
        for job in list.jobs {
            let job = words::job(job);
            bytes += job.encoded_len();
            if let Some(last) = page.jobs.last()
                && bytes > PAGE_MAX_BYTES
            {
                page.next = Some(last.id.clone());
                break;
            }
            page.jobs.push(job);
        }
        Ok(Response::new(page))
    }

    async fn cancel(
        &self,
        request: Request<pb::CancelRequest>,
    ) -> Result<Response<pb::CancelResponse>, Status> {
        let request = request.into_inner();
        let job = self
            .0
            .cancel(&request.job, request.reason)
            .await?
            .to_string();
        Ok(Response::new(pb::CancelResponse { job }))
    }

    async fn cancel_many(
        &self,
        request: Request<pb::CancelManyRequest>,
    ) -> Result<Response<pb::CancelManyResponse>, Status> {
        let request = request.into_inner();
        let request = CancelMany {
            states: words::states(&request.states)?,
            name: request.name,
            labels: request.labels,
            all: request.all,
            dry_run: request.dry_run,
            reason: request.reason,
        };
        let done = self.0.cancel_many(request).await?;
        let failed = done
            .failed
            .into_iter()
            .map(|failure| pb::cancel_many_response::Failure {
                job: failure.job.to_string(),
                error: failure.error,
            });
        Ok(Response::new(pb::CancelManyResponse {
            jobs: done.jobs.iter().map(ToString::to_string).collect(),
            failed: failed.collect(),
            dry_run: done.dry_run,
        }))
    }

    async fn signal(
        &self,
        request: Request<pb::SignalRequest>,
    ) -> Result<Response<pb::SignalResponse>, Status> {
        let request = request.into_inner();
        let payload = words::json("/payload_json", &request.payload_json)?;
        let job = self
            .0
            .signal(&request.job, &request.name, payload)
            .await?
            .to_string();
        Ok(Response::new(pb::SignalResponse { job }))
    }

    type WatchStream = BoxStream<pb::WatchResponse>;

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let client = client(&request);
        let request = request.into_inner();
        let watch = Watch {
            without_output: !request.output.unwrap_or(request.job.is_some()),
            job: request.job,
            after: request.after,
            history_only: false,
        };
        let stream = self.0.watch(client, watch).await?;
        Ok(Response::new(sent(stream, self.0.limits().stall)))
    }

    type LogsStream = BoxStream<pb::LogsResponse>;

    async fn logs(
        &self,
        request: Request<pb::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let client = client(&request);
        let request = request.into_inner();
        let query = LogQuery {
            stream: words::output_stream(request.stream)?,
            step: request.step,
        };
        if request.follow {
            let stream = self.0.follow_logs(client, &request.job, query).await?;
            return Ok(Response::new(sent(stream, self.0.limits().stall)));
        }
        let logs = self.0.logs(&request.job, &query).await?;
        let pieces = logs.pieces.into_iter().map(piece);
        Ok(Response::new(all(pieces.collect())))
    }

    async fn result(
        &self,
        request: Request<pb::ResultRequest>,
    ) -> Result<Response<pb::ResultResponse>, Status> {
        let job = self.0.find(&request.get_ref().job).await?;
        let result = self.0.result_of(&job).await?.ok_or_else(|| {
            Fault::new(
                FaultCode::Precondition,
                format!("job {} is not over: it is {}", job.id, job.state),
            )
        })?;
        let result = Some(words::result(result));
        Ok(Response::new(pb::ResultResponse { result }))
    }

    async fn list_artifacts(
        &self,
        request: Request<pb::ListArtifactsRequest>,
    ) -> Result<Response<pb::ListArtifactsResponse>, Status> {
        let list = self.0.artifacts(&request.get_ref().job).await?;
        let artifacts = list.artifacts.into_iter().map(words::artifact).collect();
        Ok(Response::new(pb::ListArtifactsResponse { artifacts }))
    }

    type GetArtifactStream = BoxStream<pb::GetArtifactResponse>;

    async fn get_artifact(
        &self,
        request: Request<pb::GetArtifactRequest>,
    ) -> Result<Response<Self::GetArtifactStream>, Status> {
        let request = request.into_inner();
        let found = self.0.artifact(&request.job, &request.name).await?;
        let mut items = vec![get_artifact_response::Item::Artifact(words::artifact(
            found.info,
        ))];
        let mut bytes = Bytes::from(found.bytes);
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES));
            items.push(get_artifact_response::Item::Chunk(chunk));
        }
        let messages = items
            .into_iter()
            .map(|item| pb::GetArtifactResponse { item: Some(item) });
        Ok(Response::new(all(messages.collect())))
    }

    async fn history(
        &self,
        request: Request<pb::HistoryRequest>,
    ) -> Result<Response<pb::HistoryResponse>, Status> {
        let client = client(&request);
        let request = request.into_inner();
        let limit = request.limit.map_or(PAGE_MAX, |limit| limit as usize);
        let limit = page_limit(limit, "/limit")?;
        let found = self
            .0
            .history_page(client, request.job, request.after, limit)
            .await?;
        let mut page = pb::HistoryResponse {
            events: Vec::with_capacity(found.events.len()),
            next: found.next,
            gap: found.gap.as_ref().map(words::gap),
        };
        let mut bytes = 0;
        for event in found.events {
            let event = words::event(event);
            bytes += event.encoded_len();
            if let Some(last) = page.events.last()
                && bytes > PAGE_MAX_BYTES
            {
                page.next = last.lsn;
                break;
            }
            page.events.push(event);
        }
        Ok(Response::new(page))
    }
}

impl Source for EventStream {
    type Message = pb::WatchResponse;

    async fn next(&mut self) -> Result<Option<pb::WatchResponse>, Fault> {
        let item = EventStream::next(self).await?.map(|item| match item {
            Item::Event(event) => watch_response::Item::Event(words::event(*event)),
            Item::Gap(gap) => watch_response::Item::Gap(words::gap(&gap)),
            Item::End(end) => watch_response::Item::End(words::stream_end(&end)),
        });
        Ok(item.map(|item| pb::WatchResponse { item: Some(item) }))
    }
}

impl Source for LogStream {
    type Message = pb::LogsResponse;

    async fn next(&mut self) -> Result<Option<pb::LogsResponse>, Fault> {
        Ok(LogStream::next(self).await?.map(|item| match item {
            LogItem::Piece(found) => piece(found),
            LogItem::End(end) => pb::LogsResponse {
                item: Some(logs_response::Item::End(words::stream_end(&end))),
            },
        }))
    }
}

fn piece(piece: crate::wire::LogPiece) -> pb::LogsResponse {
    pb::LogsResponse {
        item: Some(logs_response::Item::Piece(words::log_piece(piece))),
    }
}
