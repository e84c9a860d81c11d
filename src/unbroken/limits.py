"""Every bound of the product in one place, with its unit in its name.

`Limits` is a frozen value handed down from the composition root; a test reaches each of them and metrics show them.
Nothing else in the package holds a number that bounds memory, time or size.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "Limits"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one server; the defaults suit one process on a small machine."""

    # names and metadata
    name_bytes_max: int = 512
    kind_bytes_max: int = 64
    producer_id_bytes_max: int = 256
    metadata_bytes_max: int = 16 * KIB
    content_type_bytes_max: int = 256
    reason_bytes_max: int = 4 * KIB

    # one append and one message (encoded size)
    message_bytes_max: int = MIB
    json_depth_max: int = 128
    append_messages_max: int = 100_000
    append_bytes_max: int = 8 * MIB

    # the log
    commit_messages_max: int = 4_000
    commit_bytes_max: int = 8 * MIB
    pending_bytes_max: int = 64 * MIB
    append_wait_seconds_max: float = 10.0
    probe_seconds: float = 1.0

    # reading
    read_messages_max: int = 10_000
    read_bytes_max: int = 1 * MIB
    page_items_max: int = 1_000

    # the hub: a ring per live stream
    ring_bytes_max: int = 1 * MIB
    ring_batches_max: int = 1_024
    catch_up_bytes_max: int = 32 * MIB
    catch_up_bytes_min: int = 16 * KIB

    # one connection
    frame_bytes_max: int = 8 * MIB
    frame_seconds_max: float = 300.0
    unfinished_frames_bytes_max: int = 128 * MIB
    connections_max: int = 20_000
    subscriptions_max: int = 1_000
    connection_buffer_bytes_max: int = 256 * KIB
    control_frames_per_second_max: int = 100
    connection_pending_appends_max: int = 10_000
    handshake_seconds_max: float = 10.0
    heartbeat_seconds: float = 15.0
    silence_seconds_max: float = 40.0
    drain_seconds_max: float = 10.0

    # one owner, and one tenant; 0 is no bound
    owner_connections_max: int = 200
    owner_subscriptions_max: int = 10_000
    owner_arriving_bytes_max: int = 64 * MIB
    owner_unfinished_frames_bytes_max: int = 32 * MIB
    owner_requests_per_second_max: int = 200
    owner_messages_per_second_max: int = 5_000
    owner_bytes_per_second_max: int = 16 * MIB
    owner_stored_bytes_max: int = 16 * 1024 * MIB
    owner_open_streams_max: int = 10_000
    tenant_connections_max: int = 5_000
    tenant_subscriptions_max: int = 100_000
    tenant_arriving_bytes_max: int = 128 * MIB
    tenant_requests_per_second_max: int = 2_000
    tenant_messages_per_second_max: int = 50_000
    tenant_bytes_per_second_max: int = 64 * MIB
    tenant_stored_bytes_max: int = 0
    tenant_open_streams_max: int = 0
    quota_usage_seconds: float = 15.0

    # HTTP
    http_idle_seconds: float = 75.0
    head_bytes_max: int = 64 * KIB
    pipelined_requests_max: int = 16
    silent_connections_max: int = 4_096
    body_bytes_max: int = 8 * MIB
    body_bytes_per_second_min: int = 4 * KIB
    body_uncounted_bytes: int = 64 * KIB
    arriving_bytes_max: int = 256 * MIB
    discard_bytes_max: int = 256 * MIB
    discard_seconds_max: float = 30.0
    long_poll_seconds: float = 25.0
    sse_seconds_max: float = 60.0
    ready_seconds_max: float = 1.0

    # leases and retention
    lease_seconds_min: float = 1.0
    lease_seconds: float = 6.0
    lease_seconds_max: float = 3_600.0
    reap_interval_seconds: float = 1.0
    ttl_seconds_max: int = 10 * 365 * 86_400
    expire_batch_streams_max: int = 100
    delete_step_chunks_max: int = 100

    # signed checkpoints, where they are made
    checkpoint_messages: int = 1_000
    checkpoint_seconds: float = 10.0

    # the store
    store_bytes_max: int = 16 * 1024 * 1024 * MIB
    store_ballast_bytes: int = 16 * MIB
    store_pending_max: int = 65_536
    store_seconds_max: float = 10.0
    store_check_seconds_max: float = 0.5
    store_busy_seconds_max: float = 5.0
    store_cache_bytes: int = 32 * MIB
    store_cached_streams_max: int = 10_000
    store_cached_producers_max: int = 64
    store_wal_bytes: int = 8 * MIB
    store_readers: int = 2
    hint_poll_seconds: float = 0.1

    # compaction
    compact_chunks_min: int = 64
    compact_chunk_bytes: int = 64 * KIB

    # erasure
    erase_rewrite_bytes_max: int = 64 * MIB

    # the audit log
    audit_text_characters_max: int = 512
    audit_kinds_max: int = 100
    audit_interval_seconds: float = 60.0
    audit_sync_seconds: float = 1.0

    # tickets
    ticket_seconds: float = 30.0
    tickets_max: int = 10_000
    tickets_of_owner_max: int = 1_000

    # who is asking
    jwt_bytes_max: int = 8 * KIB
    jwt_leeway_seconds: float = 5.0
    jwks_bytes_max: int = 256 * KIB
    jwks_keys_max: int = 100
    jwks_seconds_max: float = 5.0
    jwks_refresh_seconds: float = 300.0
    jwks_cooldown_seconds: float = 10.0
    identify_seconds_max: float = 10.0
    credential_check_seconds: float = 0.5
    tokens_of_owner_max: int = 1_000
    token_grants_max: int = 64
    token_label_characters_max: int = 100
    link_seconds_max: float = 90 * 86_400.0

    # the client
    client_pending_messages_max: int = 10_000
    client_pending_bytes_max: int = 16 * MIB
    client_follow_messages_max: int = 10_000
    client_retries_max: int = 8
    client_links_max: int = 16
    client_window_appends_max: int = 16
    client_close_seconds_max: float = 1.0
    client_request_seconds_max: float = 60.0
    retry_after_seconds_max: float = 3_600.0
    backoff_seconds_min: float = 0.25
    backoff_seconds_max: float = 30.0
    backoff_reset_seconds: float = 30.0
    spill_bytes_max: int = 256 * MIB

    # runs in this process
    runs_max: int = 10_000

    # the supervisor of runs
    supervised_runs_max: int = 256
    supervised_runs_of_owner_max: int = 64
    active_runs_max: int = 1_000
    active_runs_of_owner_max: int = 250
    run_spec_bytes_max: int = 256 * KIB
    run_poll_seconds: float = 0.5
    run_takeover_seconds: float = 2.0
    run_crashes_max: int = 5
    run_crash_pause_seconds: float = 1.0
    run_crash_pause_seconds_max: float = 60.0
    run_checkpoint_bytes_max: int = 256 * KIB
    run_input_bytes_max: int = 64 * KIB
    run_file_bytes_max: int = 256 * MIB
    run_files_max: int = 1_000
    run_summary_bytes_max: int = 256 * KIB
    run_summary_scan_bytes_max: int = 1 * MIB
    run_schema_values_max: int = 20_000
    run_schema_steps_max: int = 50_000_000
    run_log_bytes_max: int = 8 * KIB
    run_seconds_max: float = 30 * 86_400.0
    run_progress_seconds: float = 0.05

    # `unbroken mcp`: what agents ask of us
    agent_calls_max: int = 64
    agent_call_seconds_max: float = 20.0
    agent_wait_seconds_max: float = 25.0
    agent_request_bytes_max: int = MIB
    agent_items_max: int = 1_000
    agent_output_bytes_max: int = 64 * KIB
    agent_tail_messages_max: int = 500
    agent_error_characters_max: int = 2_000
    agent_retries_max: int = 5

    # `unbroken run`, and with it those runs
    run_message_bytes_max: int = 32 * KIB
    run_flush_seconds: float = 0.05
    run_append_bytes_max: int = 256 * KIB
    run_memory_bytes_max: int = 8 * MIB
    run_offline_seconds_max: float = 1.0
    run_grace_seconds: float = 5.0

    # MCP tool calls
    mcp_config_bytes_max: int = MIB
    mcp_servers_max: int = 100
    mcp_calls_max: int = 64
    mcp_processes_max: int = 4
    mcp_connect_seconds: float = 10.0
    mcp_start_seconds: float = 30.0
    mcp_headers_seconds: float = 10.0
    mcp_headers_bytes_max: int = 64 * KIB
    mcp_close_seconds: float = 2.0
    mcp_view_seconds: float = 10.0
    mcp_idle_seconds: float = 120.0
    mcp_total_seconds: float = 3_600.0
    mcp_warm_seconds: float = 300.0
    mcp_result_bytes_max: int = 8 * MIB
    mcp_result_inline_bytes_max: int = 256 * KIB
    mcp_error_bytes_max: int = 64 * KIB
    mcp_error_text_bytes_max: int = 2 * KIB
    mcp_line_bytes_max: int = 16 * MIB
    mcp_stderr_bytes_max: int = 64 * KIB
    mcp_stderr_told_bytes_max: int = 4 * KIB
    mcp_queue_max: int = 1_000
    mcp_logs_per_second_max: int = 100
    mcp_tool_pages_max: int = 100
    mcp_tools_max: int = 1_000
    mcp_retries_max: int = 5
    mcp_start_failures_max: int = 5
    mcp_open_seconds: float = 30.0
    mcp_poll_seconds_min: float = 0.2
    mcp_poll_seconds_max: float = 60.0
    mcp_input_rounds_max: int = 100
    mcp_input_requests_max: int = 20


DEFAULT_LIMITS = Limits()
