# Tests of server/tokenizer and of text_stream: they need no gRPC.
foreach(name tokenizer tokenizer_corners tokenizer_json gguf_vocabulary regex unicode text_stream tokenize_command)
  quire_test(${name}_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name}_test.cc LIBS quire_tokenizer nlohmann_json::nlohmann_json)
endforeach()
