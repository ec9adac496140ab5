# Every library tuwen uses is a Debian package named in scripts/install_deps.sh. Each becomes one imported target, so
# that the folders' link lines read as names of parts.
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)
find_package(PkgConfig REQUIRED)

function(tw_pkg target module)
  pkg_check_modules(${module} QUIET IMPORTED_TARGET ${module})
  if(NOT ${module}_FOUND)
    message(FATAL_ERROR "${module} was not found: run scripts/install_deps.sh, which installs its Debian package")
  endif()
  add_library(${target} ALIAS PkgConfig::${module})
endfunction()

# For libraries whose Debian package has no pkg-config file on every release.
function(tw_lib target header library)
  string(MAKE_C_IDENTIFIER ${target} id)
  find_path(${id}_INCLUDE ${header} PATH_SUFFIXES hdf5/serial)
  find_library(${id}_LIBRARY ${library} PATH_SUFFIXES hdf5/serial)
  if(NOT ${id}_INCLUDE OR NOT ${id}_LIBRARY)
    message(FATAL_ERROR "${library} was not found: run scripts/install_deps.sh, which installs its Debian package")
  endif()
  add_library(${target} UNKNOWN IMPORTED GLOBAL)
  set_target_properties(${target} PROPERTIES IMPORTED_LOCATION ${${id}_LIBRARY}
                        INTERFACE_INCLUDE_DIRECTORIES ${${id}_INCLUDE})
endfunction()

tw_lib(dnnl::dnnl dnnl.h dnnl)
tw_lib(lmdb::lmdb lmdb.h lmdb)
tw_lib(hdf5::hdf5_c hdf5.h hdf5)
tw_lib(jpeg::jpeg jpeglib.h jpeg)
pkg_check_modules(LIBJPEG QUIET libjpeg) # libjpeg-turbo; its version, which the library itself does not tell
add_compile_definitions(TW_TURBOJPEG_VERSION="${LIBJPEG_VERSION}")
tw_lib(turbojpeg::turbojpeg turbojpeg.h turbojpeg)
tw_lib(spng::spng spng.h spng)
tw_lib(webp::webp webp/decode.h webp)
tw_lib(webpdemux::webpdemux webp/demux.h webpdemux)
tw_lib(jansson::jansson jansson.h jansson)
tw_lib(utf8proc::utf8proc utf8proc.h utf8proc)
tw_lib(yaml::yaml yaml.h yaml)
tw_lib(deflate::deflate libdeflate.h deflate)

# Several ranks need MPI; one process never does.
option(TW_WITH_MPI "ranks over MPI, where it is installed" ON)
set(TW_MPI)
if(TW_WITH_MPI)
  find_package(MPI COMPONENTS C)
  if(MPI_C_FOUND)
    set(TW_MPI MPI::MPI_C)
  else()
    message(STATUS "MPI was not found: this build runs on one rank (install libopenmpi-dev and openmpi-bin for more)")
  endif()
endif()
