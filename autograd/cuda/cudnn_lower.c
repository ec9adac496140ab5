/* Graphs of dnn.h as cuDNN's backend descriptors. */
#include "autograd/cuda/cudnn_backend.h"

#include <stdio.h>

/* ---- descriptors ---- */

tw_status tw_cudnn_status(cudnnStatus_t status, const char *what) {
    if (status == CUDNN_STATUS_SUCCESS) return TW_OK;
    char detail[512] = "";
    cudnnGetLastErrorString(detail, sizeof detail);
    tw_status code = CUDNN_STATUS_CATEGORY((int)status) == CUDNN_STATUS_NOT_SUPPORTED ? TW_ERR_UNSUPPORTED
                     : status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
                             status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
                         ? TW_ERR_MEMORY
                         : TW_ERR_LIBRARY;
    return FAIL(code, "%s: cuDNN says %s%s%s", what, cudnnGetErrorString(status), detail[0] ? ": " : "",
                detail);
}

tw_status tw_cudnn_check_version(size_t version) {
    if (version >= TW_CUDNN_LEAST) return TW_OK;
    return FAIL(TW_ERR_UNSUPPORTED, "cuDNN %zu.%zu.%zu is too old: %d.%d.%d or later is needed",
                version / 10000, version / 100 % 100, version % 100, TW_CUDNN_LEAST / 10000,
                TW_CUDNN_LEAST / 100 % 100, TW_CUDNN_LEAST % 100);
}

tw_status tw_cudnn_create(tw_cudnn_descriptors *all, cudnnBackendDescriptorType_t type,
                          cudnnBackendDescriptor_t *out) {
    *out = NULL;
    if (all->count == TW_CUDNN_DESCRIPTORS) return FAIL(TW_ERR_ARGUMENT, "a cuDNN graph of too many parts");
    TRY(tw_cudnn_status(cudnnBackendCreateDescriptor(type, out), "making a descriptor"));
    all->list[all->count++] = *out;
    return TW_OK;
}

tw_status tw_cudnn_set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                       cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    cudnnStatus_t status = cudnnBackendSetAttribute(d, name, type, count, values);
    if (status == CUDNN_STATUS_SUCCESS) return TW_OK;
    char what[64];
    snprintf(what, sizeof what, "describing a graph (attribute %d)", (int)name);
    return tw_cudnn_status(status, what);
}

tw_status tw_cudnn_finish(cudnnBackendDescriptor_t d, const char *what) {
    return tw_cudnn_status(cudnnBackendFinalize(d), what);
}

void tw_cudnn_release(tw_cudnn_descriptors *all, int from) {
    while (all->count > from) (void)cudnnBackendDestroyDescriptor(all->list[--all->count]);
}

/* ---- tensors ---- */

/* What one graph is lowered with. */
typedef struct lowering {
    const tw_dnn_graph *g;
    tw_cudnn_descriptors *all;
    cudnnBackendDescriptor_t tensor[TW_DNN_TENSORS];
} lowering;

static cudnnDataType_t type_of(tw_dnn_type type) {
    static const cudnnDataType_t types[] = {
        [TW_DNN_F32] = CUDNN_DATA_FLOAT, [TW_DNN_BF16] = CUDNN_DATA_BFLOAT16, [TW_DNN_I32] = CUDNN_DATA_INT32,
        [TW_DNN_I64] = CUDNN_DATA_INT64, [TW_DNN_BOOL] = CUDNN_DATA_BOOLEAN,
    };
    return types[type];
}

static tw_status lower_tensor(lowering *l, int i) {
    const tw_dnn_tensor *t = &l->g->tensor[i];
    cudnnBackendDescriptor_t *d = &l->tensor[i];
    cudnnDataType_t type = type_of(t->type);
    int64_t id = i + 1, alignment = 16, from = l->g->flat ? 1 : 0;
    bool inside = t->slot == TW_DNN_INSIDE, value = t->slot == TW_DNN_VALUE;
    TRY(tw_cudnn_create(l->all, CUDNN_BACKEND_TENSOR_DESCRIPTOR, d));
    TRY(tw_cudnn_set(*d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type));
    TRY(tw_cudnn_set(*d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4 - from, t->dim + from));
    TRY(tw_cudnn_set(*d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4 - from, t->stride + from));
    TRY(tw_cudnn_set(*d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id));
    TRY(tw_cudnn_set(*d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment));
    TRY(tw_cudnn_set(*d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &inside));
    TRY(tw_cudnn_set(*d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &value));
    return tw_cudnn_finish(*d, "a tensor");
}

/* ---- operations ---- */

/* Sets an operation's attribute to a tensor, if there is one. */
static tw_status tensor_of(const lowering *l, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                           int i) {
    if (i == TW_DNN_NONE) return TW_OK;
    return tw_cudnn_set(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &l->tensor[i]);
}

static tw_status lower_pointwise(lowering *l, const tw_dnn_node *n, cudnnBackendDescriptor_t *out) {
    static const cudnnPointwiseMode_t modes[] = {
        [TW_DNN_ADD] = CUDNN_POINTWISE_ADD,
        [TW_DNN_SUB] = CUDNN_POINTWISE_SUB,
        [TW_DNN_MUL] = CUDNN_POINTWISE_MUL,
        [TW_DNN_DIV] = CUDNN_POINTWISE_DIV,
        [TW_DNN_EXP] = CUDNN_POINTWISE_EXP,
        [TW_DNN_LOG] = CUDNN_POINTWISE_LOG,
        [TW_DNN_COPY] = CUDNN_POINTWISE_IDENTITY,
        [TW_DNN_INDEX] = CUDNN_POINTWISE_GEN_INDEX,
        [TW_DNN_LESS] = CUDNN_POINTWISE_CMP_LT,
        [TW_DNN_AND] = CUDNN_POINTWISE_LOGICAL_AND,
        [TW_DNN_RELU] = CUDNN_POINTWISE_RELU_FWD,
        [TW_DNN_SELECT] = CUDNN_POINTWISE_BINARY_SELECT,
        [TW_DNN_SWISH] = CUDNN_POINTWISE_SWISH_FWD,
        [TW_DNN_GELU] = CUDNN_POINTWISE_GELU_FWD,
        [TW_DNN_RELU_SLOPE] = CUDNN_POINTWISE_RELU_BWD,
        [TW_DNN_SWISH_SLOPE] = CUDNN_POINTWISE_SWISH_BWD,
        [TW_DNN_GELU_SLOPE] = CUDNN_POINTWISE_GELU_BWD,
    };
    bool slope = n->op == TW_DNN_RELU_SLOPE || n->op == TW_DNN_SWISH_SLOPE || n->op == TW_DNN_GELU_SLOPE;
    cudnnDataType_t precision = n->op == TW_DNN_INDEX                         ? CUDNN_DATA_INT32
                                : n->op == TW_DNN_LESS || n->op == TW_DNN_AND ? CUDNN_DATA_BOOLEAN
                                                                              : CUDNN_DATA_FLOAT;
    cudnnPointwiseMode_t mode = modes[n->op];
    cudnnBackendDescriptor_t how;
    int64_t axis = n->axis;
    TRY(tw_cudnn_create(l->all, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, &how));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &precision));
    if (n->op == TW_DNN_INDEX) TRY(tw_cudnn_set(how, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis));
    if (n->op == TW_DNN_SWISH || n->op == TW_DNN_SWISH_SLOPE)
        TRY(tw_cudnn_set(how, CUDNN_ATTR_POINTWISE_SWISH_BETA, CUDNN_TYPE_FLOAT, 1, &n->value));
    TRY(tw_cudnn_finish(how, "an operation of one element"));
    TRY(tw_cudnn_create(l->all, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, out));
    TRY(tw_cudnn_set(*out, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                     &how));
    if (slope) {
        TRY(tensor_of(l, *out, CUDNN_ATTR_OPERATION_POINTWISE_DYDESC, n->in[0]));
        TRY(tensor_of(l, *out, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, n->in[1]));
        return tensor_of(l, *out, CUDNN_ATTR_OPERATION_POINTWISE_DXDESC, n->out[0]);
    }
    TRY(tensor_of(l, *out, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, n->in[0]));
    TRY(tensor_of(l, *out, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, n->in[1]));
    TRY(tensor_of(l, *out, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, n->in[2]));
    return tensor_of(l, *out, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, n->out[0]);
}

static const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;

static tw_status lower_reduction(lowering *l, const tw_dnn_node *n, cudnnBackendDescriptor_t *out) {
    cudnnReduceTensorOp_t operator= n->op == TW_DNN_MAX ? CUDNN_REDUCE_TENSOR_MAX : CUDNN_REDUCE_TENSOR_ADD;
    cudnnBackendDescriptor_t how;
    TRY(tw_cudnn_create(l->all, CUDNN_BACKEND_REDUCTION_DESCRIPTOR, &how));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &operator));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32));
    TRY(tw_cudnn_finish(how, "a reduction"));
    TRY(tw_cudnn_create(l->all, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, out));
    TRY(tw_cudnn_set(*out, CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how));
    TRY(tensor_of(l, *out, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, n->in[0]));
    return tensor_of(l, *out, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, n->out[0]);
}

static tw_status lower_matmul(lowering *l, const tw_dnn_node *n, cudnnBackendDescriptor_t *out) {
    cudnnBackendDescriptor_t how;
    TRY(tw_cudnn_create(l->all, CUDNN_BACKEND_MATMUL_DESCRIPTOR, &how));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32));
    TRY(tw_cudnn_finish(how, "a product"));
    TRY(tw_cudnn_create(l->all, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, out));
    TRY(tw_cudnn_set(*out, CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how));
    TRY(tensor_of(l, *out, CUDNN_ATTR_OPERATION_MATMUL_ADESC, n->in[0]));
    TRY(tensor_of(l, *out, CUDNN_ATTR_OPERATION_MATMUL_BDESC, n->in[1]));
    TRY(tensor_of(l, *out, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, n->in[2]));
    TRY(tensor_of(l, *out, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, n->in[3]));
    TRY(tensor_of(l, *out, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, n->in[4]));
    return tensor_of(l, *out, CUDNN_ATTR_OPERATION_MATMUL_CDESC, n->out[0]);
}

static tw_status lower_reshape(lowering *l, const tw_dnn_node *n, cudnnBackendDescriptor_t *out) {
    TRY(tw_cudnn_create(l->all, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, out));
    TRY(tensor_of(l, *out, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, n->in[0]));
    return tensor_of(l, *out, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, n->out[0]);
}

static tw_status lower_keep(lowering *l, const tw_dnn_node *n, cudnnBackendDescriptor_t *out) {
    cudnnRngDistribution_t bernoulli = CUDNN_RNG_DISTRIBUTION_BERNOULLI;
    double probability = (double)n->value;
    cudnnBackendDescriptor_t how;
    TRY(tw_cudnn_create(l->all, CUDNN_BACKEND_RNG_DESCRIPTOR, &how));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_RNG_DISTRIBUTION, CUDNN_TYPE_RNG_DISTRIBUTION, 1, &bernoulli));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_RNG_BERNOULLI_DIST_PROBABILITY, CUDNN_TYPE_DOUBLE, 1, &probability));
    TRY(tw_cudnn_finish(how, "a draw"));
    TRY(tw_cudnn_create(l->all, CUDNN_BACKEND_OPERATION_RNG_DESCRIPTOR, out));
    TRY(tw_cudnn_set(*out, CUDNN_ATTR_OPERATION_RNG_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how));
    TRY(tensor_of(l, *out, CUDNN_ATTR_OPERATION_RNG_SEED, n->in[0]));
    TRY(tensor_of(l, *out, CUDNN_ATTR_OPERATION_RNG_OFFSET_DESC, n->in[1]));
    return tensor_of(l, *out, CUDNN_ATTR_OPERATION_RNG_YDESC, n->out[0]);
}

static tw_status convolution(lowering *l, const tw_dnn_node *n, cudnnBackendDescriptor_t *how) {
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    int64_t sides = 2, stride[2] = {n->stride, n->stride}, padding[2] = {n->padding, n->padding},
            dilation[2] = {1, 1};
    TRY(tw_cudnn_create(l->all, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, how));
    TRY(tw_cudnn_set(*how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32));
    TRY(tw_cudnn_set(*how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode));
    TRY(tw_cudnn_set(*how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &sides));
    TRY(tw_cudnn_set(*how, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation));
    TRY(tw_cudnn_set(*how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride));
    TRY(tw_cudnn_set(*how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, padding));
    TRY(tw_cudnn_set(*how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, padding));
    return tw_cudnn_finish(*how, "a convolution");
}

static tw_status lower_conv(lowering *l, const tw_dnn_node *n, cudnnBackendDescriptor_t *out) {
    /* of each direction: the operation, its convolution, factors, and the tensors in[0], in[1], out[0] */
    static const struct {
        cudnnBackendDescriptorType_t type;
        cudnnBackendAttributeName_t how, alpha, beta, in[2], out;
    } kinds[] = {
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
         {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W},
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
         {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W},
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
         {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X},
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW},
    };
    const int kind = (int)n->op - (int)TW_DNN_CONV;
    const float one = 1.0f, zero = 0.0f;
    cudnnBackendDescriptor_t how;
    TRY(convolution(l, n, &how));
    TRY(tw_cudnn_create(l->all, kinds[kind].type, out));
    TRY(tw_cudnn_set(*out, kinds[kind].how, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how));
    TRY(tw_cudnn_set(*out, kinds[kind].alpha, CUDNN_TYPE_FLOAT, 1, &one));
    TRY(tw_cudnn_set(*out, kinds[kind].beta, CUDNN_TYPE_FLOAT, 1, &zero));
    for (int i = 0; i < 2; i++) TRY(tensor_of(l, *out, kinds[kind].in[i], n->in[i]));
    return tensor_of(l, *out, kinds[kind].out, n->out[0]);
}

static tw_status lower_norm(lowering *l, const tw_dnn_node *n, cudnnBackendDescriptor_t *out) {
    /* of each direction: the operation, its mode, and the tensors in[0] ..., out[0] ... */
    static const struct {
        cudnnBackendDescriptorType_t type;
        cudnnBackendAttributeName_t mode, in[TW_DNN_INPUTS], out[TW_DNN_OUTPUTS];
    } kinds[] = {
        {CUDNN_BACKEND_OPERATION_NORM_FORWARD_DESCRIPTOR,
         CUDNN_ATTR_OPERATION_NORM_FWD_MODE,
         {CUDNN_ATTR_OPERATION_NORM_FWD_XDESC, CUDNN_ATTR_OPERATION_NORM_FWD_SCALE_DESC,
          CUDNN_ATTR_OPERATION_NORM_FWD_BIAS_DESC, CUDNN_ATTR_OPERATION_NORM_FWD_EPSILON_DESC},
         {CUDNN_ATTR_OPERATION_NORM_FWD_YDESC, CUDNN_ATTR_OPERATION_NORM_FWD_MEAN_DESC,
          CUDNN_ATTR_OPERATION_NORM_FWD_INV_VARIANCE_DESC}},
        {CUDNN_BACKEND_OPERATION_NORM_FORWARD_DESCRIPTOR,
         CUDNN_ATTR_OPERATION_NORM_FWD_MODE,
         {CUDNN_ATTR_OPERATION_NORM_FWD_XDESC, CUDNN_ATTR_OPERATION_NORM_FWD_SCALE_DESC,
          CUDNN_ATTR_OPERATION_NORM_FWD_BIAS_DESC, CUDNN_ATTR_OPERATION_NORM_FWD_MEAN_DESC,
          CUDNN_ATTR_OPERATION_NORM_FWD_INV_VARIANCE_DESC},
         {CUDNN_ATTR_OPERATION_NORM_FWD_YDESC}},
        {CUDNN_BACKEND_OPERATION_NORM_BACKWARD_DESCRIPTOR,
         CUDNN_ATTR_OPERATION_NORM_BWD_MODE,
         {CUDNN_ATTR_OPERATION_NORM_BWD_DYDESC, CUDNN_ATTR_OPERATION_NORM_BWD_XDESC,
          CUDNN_ATTR_OPERATION_NORM_BWD_SCALE_DESC, CUDNN_ATTR_OPERATION_NORM_BWD_MEAN_DESC,
          CUDNN_ATTR_OPERATION_NORM_BWD_INV_VARIANCE_DESC},
         {CUDNN_ATTR_OPERATION_NORM_BWD_DXDESC, CUDNN_ATTR_OPERATION_NORM_BWD_DSCALE_DESC,
          CUDNN_ATTR_OPERATION_NORM_BWD_DBIAS_DESC}},
    };
    const int kind = (int)n->op - (int)TW_DNN_NORM;
    const cudnnBackendNormMode_t mode = CUDNN_BATCH_NORM;
    const cudnnBackendNormFwdPhase_t phase =
        n->op == TW_DNN_NORM ? CUDNN_NORM_FWD_TRAINING : CUDNN_NORM_FWD_INFERENCE;
    TRY(tw_cudnn_create(l->all, kinds[kind].type, out));
    TRY(tw_cudnn_set(*out, kinds[kind].mode, CUDNN_TYPE_NORM_MODE, 1, &mode));
    if (n->op != TW_DNN_NORM_GRADIENT)
        TRY(tw_cudnn_set(*out, CUDNN_ATTR_OPERATION_NORM_FWD_PHASE, CUDNN_TYPE_NORM_FWD_PHASE, 1, &phase));
    for (int i = 0; i < TW_DNN_INPUTS; i++) TRY(tensor_of(l, *out, kinds[kind].in[i], n->in[i]));
    for (int i = 0; i < TW_DNN_OUTPUTS; i++) TRY(tensor_of(l, *out, kinds[kind].out[i], n->out[i]));
    return TW_OK;
}

static tw_status lower_pool(lowering *l, const tw_dnn_node *n, cudnnBackendDescriptor_t *out) {
    const bool forward = n->op == TW_DNN_POOL;
    const cudnnResampleMode_t mode = CUDNN_RESAMPLE_AVGPOOL_INCLUDE_PADDING;
    const cudnnPaddingMode_t padding = CUDNN_ZERO_PAD;
    const int64_t sides = 2, window[2] = {n->stride, n->stride}, none[2] = {0, 0};
    cudnnBackendDescriptor_t how;
    TRY(tw_cudnn_create(l->all, CUDNN_BACKEND_RESAMPLE_DESCRIPTOR, &how));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_RESAMPLE_MODE, CUDNN_TYPE_RESAMPLE_MODE, 1, &mode));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_RESAMPLE_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_RESAMPLE_PADDING_MODE, CUDNN_TYPE_PADDING_MODE, 1, &padding));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_RESAMPLE_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &sides));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_RESAMPLE_WINDOW_DIMS, CUDNN_TYPE_INT64, 2, window));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_RESAMPLE_STRIDES, CUDNN_TYPE_INT64, 2, window));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_RESAMPLE_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, none));
    TRY(tw_cudnn_set(how, CUDNN_ATTR_RESAMPLE_POST_PADDINGS, CUDNN_TYPE_INT64, 2, none));
    TRY(tw_cudnn_finish(how, "a pooling"));
    TRY(tw_cudnn_create(l->all,
                        forward ? CUDNN_BACKEND_OPERATION_RESAMPLE_FWD_DESCRIPTOR
                                : CUDNN_BACKEND_OPERATION_RESAMPLE_BWD_DESCRIPTOR,
                        out));
    TRY(tw_cudnn_set(
        *out, forward ? CUDNN_ATTR_OPERATION_RESAMPLE_FWD_DESC : CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DESC,
        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how));
    TRY(tensor_of(
        l, *out, forward ? CUDNN_ATTR_OPERATION_RESAMPLE_FWD_XDESC : CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DYDESC,
        n->in[0]));
    return tensor_of(
        l, *out, forward ? CUDNN_ATTR_OPERATION_RESAMPLE_FWD_YDESC : CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DXDESC,
        n->out[0]);
}

static tw_status lower_node(lowering *l, const tw_dnn_node *n, cudnnBackendDescriptor_t *out) {
    switch (n->op) {
    case TW_DNN_MAX:
    case TW_DNN_SUM:
        return lower_reduction(l, n, out);
    case TW_DNN_MATMUL:
        return lower_matmul(l, n, out);
    case TW_DNN_RESHAPE:
        return lower_reshape(l, n, out);
    case TW_DNN_KEEP:
        return lower_keep(l, n, out);
    case TW_DNN_CONV:
    case TW_DNN_CONV_X:
    case TW_DNN_CONV_W:
        return lower_conv(l, n, out);
    case TW_DNN_NORM:
    case TW_DNN_NORM_AGAIN:
    case TW_DNN_NORM_GRADIENT:
        return lower_norm(l, n, out);
    case TW_DNN_POOL:
    case TW_DNN_POOL_X:
        return lower_pool(l, n, out);
    default:
        return lower_pointwise(l, n, out);
    }
}

tw_status tw_cudnn_lower(const tw_dnn_graph *g, cudnnHandle_t handle, tw_cudnn_descriptors *all,
                         cudnnBackendDescriptor_t *out) {
    lowering l = {.g = g, .all = all};
    cudnnBackendDescriptor_t operation[TW_DNN_NODES];
    if (g->full) return FAIL(TW_ERR_ARGUMENT, "a cuDNN graph of too many parts");
    for (int i = 0; i < g->tensors; i++) TRY(lower_tensor(&l, i));
    for (int i = 0; i < g->nodes; i++) {
        char what[32];
        snprintf(what, sizeof what, "operation %d of a graph", i);
        TRY(lower_node(&l, &g->node[i], &operation[i]));
        TRY(tw_cudnn_finish(operation[i], what));
    }
    TRY(tw_cudnn_create(all, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, out));
    TRY(tw_cudnn_set(*out, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->nodes,
                     operation));
    if (handle) TRY(tw_cudnn_set(*out, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle));
    return tw_cudnn_finish(*out, "a graph");
}
