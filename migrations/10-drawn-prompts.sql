-- What wildcards became in the prompts of a picture: of its row in contents, a JSON object with both; 0 without wildcards.
alter table images add column prompts integer not null default 0;

create trigger images_forget_prompts after delete on images when old.prompts <> 0 begin
    delete from contents where id = old.prompts;
end;
