-- Requests one path again and again.
wrk.headers["Authorization"] = "Bearer load-key"
