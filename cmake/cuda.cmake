# The CUDA device: TW_CUDA (the preset `cuda`). Everything in autograd/cuda/ and autograd/ops/*.cu.

# Every operation of ops.def has a .cu file: without one, nothing links.
file(GLOB TW_CUDA_KERNELS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/autograd/ops/*.cu ${CMAKE_SOURCE_DIR}/autograd/cuda/*.cu)
# What of autograd/cuda/ calls no library, for tests/cuda_shim too.
file(GLOB TW_CUDA_PLAIN CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/autograd/cuda/dnn_*.c)
list(APPEND TW_CUDA_PLAIN ${CMAKE_SOURCE_DIR}/autograd/cuda/product.c ${CMAKE_SOURCE_DIR}/autograd/cuda/choice.c)

# Adds the device to tw_autograd.
function(tw_cuda_device)
  if(NOT TW_CUDA)
    return()
  endif()
  file(GLOB wrappers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/autograd/cuda/*.c)
  target_sources(tw_autograd PRIVATE ${TW_CUDA_KERNELS} ${wrappers})
  target_link_libraries(tw_autograd PUBLIC CUDA::cudart CUDA::cublasLt cudnn::cudnn)
  target_compile_options(tw_autograd PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo -Xptxas=-warn-spills -Xcompiler=-Wall,-Wextra,-Wno-unknown-pragmas>)
  if(TW_WERROR)
    target_compile_options(tw_autograd PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
  endif()
endfunction()

if(NOT TW_CUDA)
  return()
endif()
# One GPU generation as machine code and as PTX, from which the driver makes the code of later ones.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90)
endif()
find_program(TW_NVCC nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(NOT TW_NVCC)
  message(FATAL_ERROR "TW_CUDA needs nvcc: install the CUDA toolkit (13.0 or later) or set CUDA_HOME; "
                      "the preset release builds without")
endif()
set(CMAKE_CUDA_COMPILER ${TW_NVCC})
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
find_package(CUDAToolkit REQUIRED)

# cuDNN and NCCL have no CMake package of their own. `missing`: what is said where the library is not found;
# without it that is an error.
function(tw_cuda_library target header library)
  string(MAKE_C_IDENTIFIER ${target} id)
  find_path(${id}_INCLUDE ${header} HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(${id}_LIBRARY ${library} HINTS ${CUDAToolkit_LIBRARY_DIR} PATH_SUFFIXES lib64)
  if(NOT ${id}_INCLUDE OR NOT ${id}_LIBRARY)
    if(ARGN)
      message(STATUS "${ARGN}")
      return()
    endif()
    message(FATAL_ERROR "${library} was not found beside the CUDA toolkit: install its development package")
  endif()
  add_library(${target} UNKNOWN IMPORTED GLOBAL)
  set_target_properties(${target} PROPERTIES IMPORTED_LOCATION ${${id}_LIBRARY}
                        INTERFACE_INCLUDE_DIRECTORIES ${${id}_INCLUDE})
endfunction()
tw_cuda_library(cudnn::cudnn cudnn.h cudnn)
tw_cuda_library(nccl::nccl nccl.h nccl
  "NCCL was not found: this build runs on one GPU (install libnccl-dev for several ranks)")
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)

add_compile_definitions(TW_WITH_CUDA)
