#!/bin/sh
# Makes bindings.rs anew: needs bindgen 0.73 (cargo install bindgen-cli), libclang, libibverbs-dev and librdmacm-dev 44
# (Debian 12). Run it in this folder. The bindings' ABI has not changed since rdma-core 17; newer headers only add to it.
set -eu
FUNCTIONS='ibv_(alloc_pd|dealloc_pd|reg_mr_iova|dereg_mr|create_comp_channel|destroy_comp_channel|create_cq|destroy_cq|get_cq_event|ack_cq_events|query_qp|wc_status_str)|rdma_(create_event_channel|destroy_event_channel|create_id|destroy_id|bind_addr|listen|resolve_addr|resolve_route|create_qp|destroy_qp|connect|accept|reject|disconnect|get_cm_event|ack_cm_event|set_option|get_src_port)'
{
    cat << 'HEADER'
// Made by bindings.sh with bindgen from the headers of rdma-core 44 (Debian 12: libibverbs-dev, librdmacm-dev), whose
// declarations these are: GPL-2.0 or Linux-OpenIB at the user's choice, taken under Linux-OpenIB (a BSD licence).
// Not to be edited; `layout.rs` holds the offsets that the C compiler gave.
HEADER
    bindgen bindings.h --rust-target 1.85 --rust-edition 2024 --disable-header-comment --allowlist-function "$FUNCTIONS" \
        --dynamic-loading Rdma --dynamic-link-require-all --no-layout-tests --no-doc-comments --no-derive-debug \
        --default-enum-style consts --no-prepend-enum-name --ctypes-prefix libc --blocklist-type 'pthread_.*|sockaddr.*|__pthread.*' \
        --raw-line 'use libc::{pthread_cond_t, pthread_mutex_t, sockaddr};' \
        --allowlist-type 'ibv_access_flags|ibv_send_flags|ibv_wc_flags|ibv_qp_attr_mask' \
        --allowlist-var 'RDMA_OPTION_ID_ACK_TIMEOUT|RDMA_OPTION_ID' \
        --opaque-type 'ibv_device|verbs_.*|ibv_srq|ibv_ah|ibv_ece|_compat.*|ibv_mw.*|ibv_dm.*|ibv_xrcd|rdma_route|rdma_ud_param'
} > bindings.rs
