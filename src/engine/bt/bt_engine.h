/* The translator as the registry sees it. */
#ifndef ENGINE_BT_BT_ENGINE_H
#define ENGINE_BT_BT_ENGINE_H

#include "engine/engine.h"

extern const struct engine_type bt_engine;

#endif
