# `cmake --install` gives a package: include/satin, lib/libsatin.so (all rooms below cli) and SatinConfig.cmake.
include(GNUInstallDirs)
get_property(satin_rooms GLOBAL PROPERTY SATIN_ROOM_LIBRARIES)
add_library(satin_shared SHARED ${CMAKE_BINARY_DIR}/torch_pch.cpp)
set_target_properties(satin_shared PROPERTIES OUTPUT_NAME satin)
# The system's static libraries are not position-independent: here their shared ones are linked.
# Whole archives: operator registrations have no callers that a linker could see.
target_link_libraries(satin_shared PRIVATE -Wl,-z,defs -Wl,--whole-archive)
foreach(room ${satin_rooms} satin_kernels)
  target_link_libraries(satin_shared PRIVATE $<TARGET_FILE:${room}>)
  add_dependencies(satin_shared ${room})
endforeach()
target_link_libraries(satin_shared PRIVATE -Wl,--no-whole-archive satin_torch yaml-cpp pcre2-8 utf8proc Threads::Threads)
if(SATIN_WITH_CUDA)
  target_link_libraries(satin_shared PRIVATE CUDA::cudart_static)
endif()

configure_file(csrc/SatinConfig.cmake.in ${CMAKE_BINARY_DIR}/SatinConfig.cmake @ONLY)
install(TARGETS satin_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${CMAKE_BINARY_DIR}/SatinConfig.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Satin)
install(DIRECTORY csrc/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/satin FILES_MATCHING PATTERN "*.h" PATTERN cli EXCLUDE)
install(DIRECTORY kernels DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/satin FILES_MATCHING PATTERN "*.h" PATTERN cpu EXCLUDE PATTERN cuda EXCLUDE)
install(TARGETS satin RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
