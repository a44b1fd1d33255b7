/* What bindings.rs is made from; sh bindings.sh makes it. */
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
