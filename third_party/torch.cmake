# satin_torch: LibTorch from the PyPI wheel.
# find_package(Torch) aborts without a CUDA toolkit when the wheel was built with CUDA (there is no CPU wheel on PyPI),
# and costs 10 s a configure; the wheel's layout is fixed by its pinned version, so the targets are named here.
set(SATIN_TORCH_VERSION 2.11.0)
set(SATIN_PYTHON "${CMAKE_SOURCE_DIR}/.venv/bin/python" CACHE FILEPATH "Python that has torch ${SATIN_TORCH_VERSION}")
if(NOT SATIN_TORCH_ROOT)
  execute_process(COMMAND ${SATIN_PYTHON} -c
    "import importlib.util as u, importlib.metadata as m; print(u.find_spec('torch').submodule_search_locations[0]); print(m.version('torch'))"
    OUTPUT_VARIABLE satin_torch_out RESULT_VARIABLE satin_torch_rc ERROR_QUIET)
  if(NOT satin_torch_rc EQUAL 0)
    message(FATAL_ERROR "${SATIN_PYTHON} has no torch. Run scripts/build (it sets up .venv), or pass -DSATIN_PYTHON=...")
  endif()
  string(REGEX MATCHALL "[^\n]+" satin_torch_lines "${satin_torch_out}")
  list(GET satin_torch_lines 0 satin_torch_root)
  list(GET satin_torch_lines 1 satin_torch_found)
  if(NOT satin_torch_found MATCHES "^${SATIN_TORCH_VERSION}")
    message(FATAL_ERROR "torch ${SATIN_TORCH_VERSION} expected, ${satin_torch_found} found in ${satin_torch_root}")
  endif()
  set(SATIN_TORCH_ROOT ${satin_torch_root} CACHE PATH "Folder of the torch package" FORCE)
endif()

add_library(satin_torch INTERFACE)
target_include_directories(satin_torch SYSTEM INTERFACE
  ${SATIN_TORCH_ROOT}/include ${SATIN_TORCH_ROOT}/include/torch/csrc/api/include)
target_link_directories(satin_torch INTERFACE ${SATIN_TORCH_ROOT}/lib)
# libstdc++ goes first, and the wheel's libtorch.so (a stub that only pulls in the others) not at all: the wheel's libraries
# export parts of std::filesystem from another compiler, which would shadow the system's (remove_all then jumps to null).
target_link_libraries(satin_torch INTERFACE stdc++ torch_cpu c10)
target_compile_definitions(satin_torch INTERFACE _GLIBCXX_USE_CXX11_ABI=1)
target_compile_options(satin_torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
target_link_libraries(satin_torch INTERFACE ${SATIN_TORCH_ROOT}/lib/libgomp.so.1)
if(SATIN_WITH_CUDA)
  target_link_options(satin_torch INTERFACE -Wl,--no-as-needed)
  target_link_libraries(satin_torch INTERFACE torch_cuda c10_cuda)
  target_include_directories(satin_torch SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_definitions(satin_torch INTERFACE SATIN_WITH_CUDA=1)
endif()
list(APPEND CMAKE_BUILD_RPATH ${SATIN_TORCH_ROOT}/lib)
list(APPEND CMAKE_INSTALL_RPATH ${SATIN_TORCH_ROOT}/lib)
