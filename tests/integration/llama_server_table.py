"""Which of llama.cpp's server tests apply to corpusd, and why the others do not."""

# Files of tools/server/tests/unit that have a test which needs no special flag and no interface of
# llama.cpp's own.
FILES = ("test_basic.py", "test_chat_completion.py", "test_completion.py", "test_ctx_shift.py",
         "test_security.py", "test_tokenize.py")

# Files of which nothing applies.
OTHER_FILES = {
    "test_compat_anthropic.py": "Anthropic's dialect",
    "test_compat_gcp.py": "a flag; Vertex AI's dialect",
    "test_compat_oai_responses.py": "the Responses API",
    "test_embedding.py": "a flag; embedding models",
    "test_ignore_eos.py": "looks into llama.cpp's own generation_settings",
    "test_infill.py": "llama.cpp's own /infill",
    "test_kv_keep_only_active.py": "llama.cpp's own slots",
    "test_lora.py": "a flag; adapters",
    "test_mcp_servers.py": "a flag; MCP",
    "test_metrics.py": "a flag; the names of llama.cpp's own metrics",
    "test_proxy.py": "a flag; a proxy for its web page",
    "test_rerank.py": "a flag; reranking models",
    "test_router.py": "a flag; several models behind one server",
    "test_sleep.py": "a flag; unloads its model",
    "test_slot_save.py": "a flag; llama.cpp's own slots",
    "test_speculative.py": "a flag; draft models",
    "test_stream.py": "a flag; several models behind one server",
    "test_template.py": "a flag for other chat templates",
    "test_tool_call.py": "a flag for other chat templates; tools",
    "test_tools_builtin.py": "a flag; tools",
    "test_vision_api.py": "images",
}

WORDS = "expects the words or token counts of a model that is on Hugging Face alone"
OWN = "an endpoint, field or error text of llama.cpp's own"
FLAG = "needs a flag of llama.cpp's own"
GRAMMAR = "constrained output is not offered"
BIAS = "logit_bias is not offered"

# Tests of FILES that do not apply: by name, or by name and the beginning of its parameters.
SKIPPED = {
    # test_basic
    "test_server_props": OWN,
    "test_server_slots": OWN,
    "test_load_split_model": FLAG,
    "test_no_ui": FLAG,
    "test_server_model_aliases_and_tags": FLAG,
    # test_chat_completion
    "test_chat_completion": WORDS,
    "test_chat_completion_cached_tokens": WORDS,
    "test_chat_completion_stream": WORDS,
    "test_chat_completion_with_openai_library": WORDS,
    "test_chat_template": FLAG,
    "test_chat_template_assistant_prefill": FLAG,
    "test_chat_template_continue_final_message_vllm_compat": FLAG,
    "test_chat_template_continue_final_message_mutual_exclusion": FLAG,
    "test_apply_chat_template": FLAG,
    "test_completion_with_response_format": GRAMMAR,
    "test_completion_with_json_schema": GRAMMAR,
    "test_completion_with_grammar": GRAMMAR,
    "test_completion_with_invalid_grammar": GRAMMAR,
    "test_invalid_chat_completion_req[messages7": "two assistant's turns at the end are no error",
    "test_chat_completion_with_timings_per_token": OWN,
    "test_logprobs_stream": "wants null in a stream's first chunk, where OpenAI has an empty text",
    "test_logit_bias": BIAS,
    "test_context_size_exceeded": OWN + "; OpenAI's is context_length_exceeded",
    "test_context_size_exceeded_stream": OWN + "; OpenAI's is context_length_exceeded",
    "test_return_progress": FLAG + " (n_batch, whose batches it counts)",
    "test_chat_completions_token_count": OWN,
    "test_verbose_debug": OWN,
    # test_completion
    "test_completion": WORDS,
    "test_completion_stream": WORDS,
    "test_completion_with_openai_library": WORDS,
    "test_completion_stream_with_openai_library": WORDS,
    "test_completion_stream_with_openai_library_stops": WORDS,
    "test_json_prompt_no_mtmd": OWN,
    "test_json_prompt_mtm_error_when_not_supported": OWN,
    "test_completion_with_tokens_input": "prompts of token ids are not offered",
    "test_completion_unified": FLAG,
    "test_completion_response_fields": OWN,
    "test_n_probs": OWN,
    "test_n_probs_stream": OWN,
    "test_n_probs_post_sampling": OWN,
    "test_n_probs_post_backend_sampling": FLAG,
    "test_cancel_request": OWN,
    "test_completion_prompt_cache": FLAG,
    # test_ctx_shift
    "test_ctx_shift_enabled": FLAG,
    "test_ctx_shift_disabled_short_prompt[-1": OWN,
    "test_ctx_shift_disabled_long_prompt": OWN,
    # test_security
    "test_access_static_assets_without_api_key": OWN,
    "test_correct_api_key_anthropic_header": "Anthropic's dialect",
    "test_cors_options": "pages of other origins may not use the daemon",
    "test_cors_origins_localhost_reflects": FLAG,
    "test_cors_origins_localhost_rejects": FLAG,
    "test_cors_origins_defaults_to_localhost_with_tools_enabled": FLAG,
    "test_cors_proxy_only_forwards_explicit_proxy_headers": FLAG,
    "test_local_media_file": "images",
    # test_tokenize
    "test_tokenize_with_bos": "the tokenizer's first token has another id",
}


def reason(name):
    """RETURNS why the test of this name ("test_x" or "test_x[parameters]") is skipped, or ""."""
    for skipped, why in SKIPPED.items():
        if name == skipped or name.startswith(skipped if "[" in skipped else skipped + "["):
            return why
    return ""
