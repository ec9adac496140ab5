/* The Hugging Face folders of the golden values. What a test writes beside them goes into its own folder. */
#ifndef TW_TESTS_HF_FOLDERS_H
#define TW_TESTS_HF_FOLDERS_H

#include "own_folder.h"

#define GOLDEN TW_SOURCE_DIR "/tests/golden/hf/"

#endif
