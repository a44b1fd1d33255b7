//! The bindings' offsets are the C compiler's: as gcc 12 gave them for rdma-core 44's headers on a 64-bit machine. All
//! that is used of the structures is here; what follows it in them is not touched.

use std::mem::{offset_of, size_of};

use super::bindings::*;

macro_rules! at {
    ($structure:ident, $field:ident $(. $more:ident)*, $offset:literal) => {
        assert_eq!(offset_of!($structure, $field $(. $more)*), $offset);
    };
}

macro_rules! size {
    ($structure:ident, $size:literal) => {
        assert_eq!(size_of::<$structure>(), $size);
    };
}

#[test]
fn layouts_are_those_of_c() {
    size!(ibv_wc, 48);
    at!(ibv_wc, wr_id, 0);
    at!(ibv_wc, status, 8);
    at!(ibv_wc, opcode, 12);
    at!(ibv_wc, byte_len, 20);
    at!(ibv_wc, __bindgen_anon_1, 24);
    at!(ibv_wc, wc_flags, 36);
    size!(ibv_sge, 16);
    at!(ibv_sge, addr, 0);
    at!(ibv_sge, length, 8);
    at!(ibv_sge, lkey, 12);
    size!(ibv_send_wr, 128);
    at!(ibv_send_wr, wr_id, 0);
    at!(ibv_send_wr, next, 8);
    at!(ibv_send_wr, sg_list, 16);
    at!(ibv_send_wr, num_sge, 24);
    at!(ibv_send_wr, opcode, 28);
    at!(ibv_send_wr, send_flags, 32);
    at!(ibv_send_wr, __bindgen_anon_1, 36);
    at!(ibv_send_wr, wr.rdma.remote_addr, 40);
    at!(ibv_send_wr, wr.rdma.rkey, 48);
    size!(ibv_recv_wr, 32);
    at!(ibv_recv_wr, wr_id, 0);
    at!(ibv_recv_wr, next, 8);
    at!(ibv_recv_wr, sg_list, 16);
    at!(ibv_recv_wr, num_sge, 24);
    size!(ibv_qp_init_attr, 64);
    at!(ibv_qp_init_attr, send_cq, 8);
    at!(ibv_qp_init_attr, recv_cq, 16);
    at!(ibv_qp_init_attr, srq, 24);
    at!(ibv_qp_init_attr, cap, 32);
    at!(ibv_qp_init_attr, qp_type, 52);
    at!(ibv_qp_init_attr, sq_sig_all, 56);
    size!(ibv_qp_cap, 20);
    at!(ibv_qp_cap, max_send_wr, 0);
    at!(ibv_qp_cap, max_recv_wr, 4);
    at!(ibv_qp_cap, max_send_sge, 8);
    at!(ibv_qp_cap, max_recv_sge, 12);
    at!(ibv_qp_cap, max_inline_data, 16);
    size!(ibv_qp_attr, 144);
    at!(ibv_qp_attr, qp_state, 0);
    at!(ibv_mr, lkey, 36);
    at!(ibv_mr, rkey, 40);
    at!(ibv_qp, context, 0);
    at!(ibv_cq, context, 0);
    at!(ibv_comp_channel, fd, 8);
    at!(ibv_context, ops, 8);
    at!(ibv_context, ops.poll_cq, 96);
    at!(ibv_context, ops.req_notify_cq, 104);
    at!(ibv_context, ops.post_send, 208);
    at!(ibv_context, ops.post_recv, 216);
    size!(rdma_cm_id, 416);
    at!(rdma_cm_id, verbs, 0);
    at!(rdma_cm_id, context, 16);
    at!(rdma_cm_id, qp, 24);
    size!(rdma_conn_param, 24);
    at!(rdma_conn_param, private_data, 0);
    at!(rdma_conn_param, private_data_len, 8);
    at!(rdma_conn_param, retry_count, 12);
    at!(rdma_conn_param, rnr_retry_count, 13);
    size!(rdma_cm_event, 80);
    at!(rdma_cm_event, id, 0);
    at!(rdma_cm_event, listen_id, 8);
    at!(rdma_cm_event, event, 16);
    at!(rdma_cm_event, status, 20);
    at!(rdma_cm_event, param, 24);
    at!(rdma_event_channel, fd, 0);
}
