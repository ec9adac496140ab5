# libtuwen, the C API of include/tuwen.h: shared and static, with tuwen.pc and find_package(tuwen).
set(TUWEN_SOVERSION 0) # raised when a program built against an older tuwen.h would no longer work

# Shared: the API and what it needs of the folders; only tuwen_* is to be seen.
add_library(libtuwen SHARED train/library.c)
target_link_libraries(libtuwen PRIVATE tw_train)
target_link_options(libtuwen PRIVATE LINKER:--version-script=${CMAKE_SOURCE_DIR}/cmake/tuwen.map LINKER:--as-needed)
set_target_properties(libtuwen PROPERTIES OUTPUT_NAME tuwen VERSION ${TUWEN_SOVERSION}.${PROJECT_VERSION}
                      SOVERSION ${TUWEN_SOVERSION} LINK_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/tuwen.map
                      PUBLIC_HEADER include/tuwen.h)

# Static: one archive of all folders; the libraries below them are named for the linker.
set(objects)
set(folders)
foreach(folder autograd layers optim data train)
  get_target_property(type tw_${folder} TYPE)
  if(type STREQUAL "STATIC_LIBRARY")
    list(APPEND objects $<TARGET_OBJECTS:tw_${folder}>)
  endif()
  list(APPEND folders tw_${folder})
endforeach()
add_library(libtuwen_static STATIC ${objects})
set_target_properties(libtuwen_static PROPERTIES OUTPUT_NAME tuwen LINKER_LANGUAGE C)

# The linker flags of the targets in `queue` and of all they link to: -lNAME, -LFOLDER where the linker would
# not look by itself.
function(tw_linker_flags out)
  set(queue ${ARGN})
  set(seen)
  set(flags)
  while(NOT "${queue}" STREQUAL "") # of "a;b-NOTFOUND" the truth is false
    list(POP_FRONT queue item)
    if(item IN_LIST seen OR item MATCHES "^\\$<LINK_ONLY:" OR item STREQUAL "" OR item MATCHES "NOTFOUND$")
      continue()
    endif()
    list(APPEND seen ${item})
    if(TARGET ${item})
      get_target_property(more ${item} INTERFACE_LINK_LIBRARIES)
      get_target_property(type ${item} TYPE)
      set(path)
      if(type STREQUAL "UNKNOWN_LIBRARY" OR type STREQUAL "SHARED_LIBRARY")
        get_target_property(path ${item} IMPORTED_LOCATION)
      endif()
      list(APPEND queue ${more} ${path})
    elseif(IS_ABSOLUTE "${item}")
      get_filename_component(folder ${item} DIRECTORY)
      get_filename_component(file ${item} NAME)
      string(REGEX REPLACE "^lib(.*)\\.(so|a)[.0-9]*$" "-l\\1" flag ${file})
      if(NOT folder IN_LIST CMAKE_C_IMPLICIT_LINK_DIRECTORIES AND NOT folder STREQUAL "/lib/${CMAKE_LIBRARY_ARCHITECTURE}")
        list(APPEND flags -L${folder})
      endif()
      list(APPEND flags ${flag})
    elseif(item MATCHES "^-")
      list(APPEND flags ${item})
    elseif(item MATCHES "^[A-Za-z0-9_]+$")
      list(APPEND flags -l${item})
    endif()
  endwhile()
  list(REMOVE_DUPLICATES flags)
  set(${out} ${flags} PARENT_SCOPE)
endfunction()
tw_linker_flags(TUWEN_STATIC_FLAGS ${folders})
string(REPLACE ";" " " TUWEN_STATIC_LIBS "${TUWEN_STATIC_FLAGS}")

# Both packages find the rest from where they lie, so that an installed tree can be moved.
include(CMakePackageConfigHelpers)
set(TUWEN_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/tuwen)
file(RELATIVE_PATH TUWEN_PC_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" TUWEN_PC_PREFIX ${TUWEN_PC_PREFIX})
configure_file(cmake/tuwen.pc.in tuwen.pc @ONLY)
configure_package_config_file(cmake/tuwen-config.cmake.in tuwen-config.cmake INSTALL_DESTINATION ${TUWEN_CMAKE_DIR}
                              PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(tuwen-config-version.cmake COMPATIBILITY SameMinorVersion)

install(TARGETS libtuwen libtuwen_static COMPONENT library
        PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT library)
install(FILES ${CMAKE_BINARY_DIR}/tuwen.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT library)
install(FILES ${CMAKE_BINARY_DIR}/tuwen-config.cmake ${CMAKE_BINARY_DIR}/tuwen-config-version.cmake
        DESTINATION ${TUWEN_CMAKE_DIR} COMPONENT library)
