-- How the pictures of a job are finished for a client that reads an object as `output` (the dialect of RunPod's public
-- endpoints), such as 1328x1328-q100.png. Null for all other jobs.
alter table jobs add column finish text;
