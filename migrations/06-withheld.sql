-- Whether a safety checker flagged the picture, which is then not kept: `png` is 0, the number of no content.
alter table images add column withheld integer not null default 0 check (withheld in (0, 1));
