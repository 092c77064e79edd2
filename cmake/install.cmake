# Filled by the packaging rules: `cmake --install` and `cpack` give a relocatable tree.
