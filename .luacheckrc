-- The dialect of Redis's sandbox: Lua 5.1 with these globals and no others.
std = "lua51"
read_globals = { "redis", "cjson", "KEYS", "ARGV" }
max_line_length = 120
-- Pieces of scripts: what they come to is linted where it is expanded, in lua/.
exclude_files = { "lua/source" }
